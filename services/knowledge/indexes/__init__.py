"""The indexes that there are: one that is searched, one that may be building beside it, those that await their end."""
