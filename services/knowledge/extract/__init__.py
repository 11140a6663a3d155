"""Reading files of any content: a program of its own (see __main__), so that a hostile file harms nothing."""
