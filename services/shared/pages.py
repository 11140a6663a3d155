"""Opaque page tokens: the key of the last row of a page, so that the next page goes on after it."""

import base64
import binascii
import json

from services.shared.errors import Invalid, Reason

DEFAULT_SIZE = 50


def page_token(*key: object) -> str:
    """The token for the page after the row with this key."""
    return base64.urlsafe_b64encode(json.dumps([str(part) for part in key]).encode()).decode().rstrip("=")


def page_key(token: str, parts: int) -> list[str] | None:
    """The key in a token; None for the first page. Raises Invalid for a token that is none of ours."""
    if not token:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise foreign_token() from error
    if not (isinstance(key, list) and len(key) == parts and all(isinstance(part, str) for part in key)):
        raise foreign_token()
    return key


def foreign_token() -> Invalid:
    """The refusal of a page token that is none of this list's."""
    return Invalid(Reason.PAGE_TOKEN_INVALID, "Use next_page_token of this list, or none for the first page.")
