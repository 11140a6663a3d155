"""Mail (EML): the subject is the heading of who wrote when to whom, of the text, and of what is attached."""

import email.policy
import re
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from email.errors import HeaderParseError, MessageError
from email.message import EmailMessage
from typing import cast

from services.knowledge.extract import html, plain
from services.knowledge.extract.archive import Nested
from services.knowledge.extract.charset import decode
from services.knowledge.extract.members import Members, Reader
from services.knowledge.extract.sections import Read
from services.knowledge.passages import Block

CONTENT_TYPE = "message/rfc822"
_HEADERS = re.compile(rb"(?:From .*\r?\n)?(?:[A-Za-z][A-Za-z0-9-]*:.*\r?\n(?:[ \t].*\r?\n)*){3,}")
_TELLING = re.compile(
    rb"^(?:from|to|subject|date|received|message-id|mime-version|return-path|delivered-to|content-type):", re.I | re.M
)
_TELLING_ENOUGH = 3
_SHOWN = ("From", "To", "Cc", "Date")


def looks_like(content: bytes) -> bool:
    """Whether the content begins with the headers of a mail."""
    headers = _HEADERS.match(content, 0, 64 * 1024)
    return headers is not None and len({told.lower() for told in _TELLING.findall(headers[0])}) >= _TELLING_ENOUGH


def read(content: bytes, nested: Nested, read_member: Reader) -> Read:
    """The text of a mail and of its attachments. Raises Unreadable."""
    message = cast(EmailMessage, message_from_bytes(content, policy=email.policy.default))
    return Read(CONTENT_TYPE, _blocks(message, Members(nested, read_member)))


def _blocks(message: EmailMessage, members: Members) -> Iterator[Block]:
    subject = _header(message, "Subject")
    above = (subject,) if subject else ()
    headers = ((name, _header(message, name)) for name in _SHOWN)
    yield Block("\n".join(f"{name}: {value}" for name, value in headers if value), None, above)
    body = message.get_body(("plain", "html"))
    if body is not None:
        for block in _text(cast(EmailMessage, body)):
            yield replace(block, headings=(*above, *block.headings))
    if message.is_multipart():
        for number, part in enumerate(message.iter_attachments(), start=1):
            attached = cast(EmailMessage, part)
            if (content := _content(attached)).strip():
                yield from members.blocks(attached.get_filename() or f"attachment {number}", content, above)


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message.get(name, ""))
    except (HeaderParseError, MessageError, ValueError, IndexError, LookupError, AttributeError):
        return ""  # the parser's own errors over broken headers


def _text(body: EmailMessage) -> Iterator[Block]:
    content = _content(body)
    try:
        text = content.decode(body.get_content_charset() or "utf-8")
    except (UnicodeDecodeError, LookupError):
        text = decode(content) or ""
    yield from (html if body.get_content_subtype() == "html" else plain).read(text).blocks


def _content(part: EmailMessage) -> bytes:
    """The bytes of a part, those of a mail attached as a whole too."""
    if part.get_content_type() == "message/rfc822":
        inside = cast(list[EmailMessage], part.get_payload())
        return inside[0].as_bytes() if part.is_multipart() else b""
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
