"""What the document of a page is called."""

import unicodedata
from urllib.parse import unquote

from services.shared.outbound.url import Url

_MOST_CHARACTERS = 200


def filename(url: Url, title: str) -> str:
    """The title, or the end of the address; without what names of files may not hold."""
    for text in (title, unquote(url.path.rstrip("/").rpartition("/")[2])):
        shown = (" " if char in "/\\" or unicodedata.category(char)[0] == "C" else char for char in text)
        if name := " ".join("".join(shown).split())[:_MOST_CHARACTERS].strip():
            return name
    return url.host
