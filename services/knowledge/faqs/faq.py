"""A FAQ: a question that the organisation answers itself. Every member reads them, admins and owners write them.

A FAQ is made and changed together with the vectors of its phrasings, so the next search finds it. While the embedding
model is away it is found by its words alone, until learning.py has caught up.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID, uuid4

from services.knowledge.document import Member
from services.knowledge.search import Embedding, Vector
from services.knowledge.text import seen, seen_line
from services.shared.errors import AlreadyExists, Exhausted, Forbidden, Invalid, NotFound, Reason, Unavailable

_MAY_WRITE = ("owner", "admin")
_ENDS = "?!.,;:…¿¡؟؛。？！、"
"""Punctuation that asks no other question; inside a text it may (C, C#, C++)."""


@dataclass(frozen=True)
class Wording:
    """What a FAQ says, as a reader sees it; made by `worded`."""

    question: str
    alternatives: tuple[str, ...]
    answer: str

    @property
    def phrasings(self) -> tuple[str, ...]:
        """All ways to ask it, the question first."""
        return (self.question, *self.alternatives)

    @property
    def sha256(self) -> bytes:
        """Of all that it says."""
        return hashlib.sha256(repr((self.phrasings, self.answer)).encode()).digest()


@dataclass(frozen=True)
class Change:
    """What is to change of a FAQ; None leaves it as it is."""

    question: str | None = None
    alternatives: tuple[str, ...] | None = None
    answer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Faq:
    """A stored FAQ. `revision` is another one after each change; `request_sha256` is of the wording at first."""

    id: UUID
    tenant_id: UUID
    user_id: UUID
    wording: Wording
    revision: int
    request_sha256: bytes
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True)
class Duplicate:
    """The organisation has this question already."""

    faq_id: UUID


@dataclass(frozen=True)
class Full:
    """The organisation has as many FAQs as it may have."""

    limit: int


class Faqs(Protocol):
    """The record of the FAQs. `vectors` are those of the phrasings, None where they are not known yet."""

    async def find(self, tenant_id: UUID, faq_id: UUID) -> Faq | None: ...

    async def newest(self, tenant_id: UUID, before: tuple[datetime, UUID] | None, limit: int) -> Sequence[Faq]:
        """Newest first; `before` is the creation time and id of a FAQ that they must be older than."""

    async def add(
        self, member: Member, request_id: UUID, faq_id: UUID, wording: Wording, vectors: Sequence[Vector] | None
    ) -> Faq | Duplicate | Full:
        """Add it and say so to the world; the first one of this request, if there is one."""

    async def change(
        self, member: Member, faq: Faq, wording: Wording, vectors: Sequence[Vector] | None
    ) -> Faq | Duplicate | None:
        """Change it and say so to the world; None if it has changed since it was read, or is gone."""

    async def delete(self, member: Member, faq_id: UUID) -> bool:
        """Remove it and say so to the world; False if there is none."""


class Curation:
    """Writing the FAQs of an organisation."""

    def __init__(self, faqs: Faqs, embedding: Embedding) -> None:
        self._faqs = faqs
        self._embedding = embedding

    async def create(self, member: Member, request_id: UUID, wording: Wording) -> Faq:
        """Raises Forbidden, Exhausted, and AlreadyExists for another FAQ's question or another request's id."""
        _check_role(member)
        vectors = await self._vectors(wording)
        added = _unless_refused(await self._faqs.add(member, request_id, uuid4(), wording, vectors))
        if added.request_sha256 != wording.sha256:
            raise AlreadyExists(Reason.REQUEST_ID_REUSED, "This request_id was used for another FAQ. Make a new one.")
        return added

    async def update(self, member: Member, faq_id: UUID, change: Change) -> Faq:
        """Raises Forbidden, NotFound, and Invalid for a question or answer without a character to see."""
        _check_role(member)
        while True:
            faq = await get(self._faqs, member, faq_id)
            wording = changed(faq.wording, change)
            if wording == faq.wording:
                return faq
            same = wording.phrasings == faq.wording.phrasings
            vectors = None if same else await self._vectors(wording)
            # Somebody else's change comes in between now and then: this one is then made of what they left.
            if updated := await self._faqs.change(member, faq, wording, vectors):
                return _unless_refused(updated)

    async def delete(self, member: Member, faq_id: UUID) -> None:
        """Raises Forbidden and NotFound."""
        _check_role(member)
        if not await self._faqs.delete(member, faq_id):
            raise _not_found()

    async def _vectors(self, wording: Wording) -> Sequence[Vector] | None:
        try:
            return await self._embedding.embed(wording.phrasings)
        except Unavailable:
            return None


async def get(faqs: Faqs, member: Member, faq_id: UUID) -> Faq:
    """A FAQ of the member's organisation. Raises NotFound."""
    if (faq := await faqs.find(member.tenant_id, faq_id)) is None:
        raise _not_found()
    return faq


def worded(question: str, alternatives: Iterable[str], answer: str, within: str = "") -> Wording:
    """What a reader sees of these; alternatives that say nothing new are left out.

    Raises Invalid for a question or answer without a character to see; `within` is the path of the message they are in.
    """
    question, answer = seen_line(question), seen(answer)
    for name, text in (("question", question), ("answer", answer)):
        if not text:
            path, fault = f"{within}{name}", "there is no character to see in it"
            raise Invalid(Reason.INVALID_FIELD, f"{path}: {fault}", violations={path: fault})
    phrasings: dict[str, str] = {}
    for text in filter(None, (question, *map(seen_line, alternatives))):
        phrasings.setdefault(asked(text), text)
    return Wording(question, tuple(phrasings.values())[1:], answer)


def changed(wording: Wording, change: Change) -> Wording:
    """Raises Invalid as `worded`."""
    return worded(
        wording.question if change.question is None else change.question,
        wording.alternatives if change.alternatives is None else change.alternatives,
        wording.answer if change.answer is None else change.answer,
        "faq.",
    )


def asked(text: str) -> str:
    """What tells questions apart: the text without letter case, compatibility forms and punctuation at its ends."""
    folded = " ".join(unicodedata.normalize("NFKC", text.casefold()).split())
    return folded.strip(_ENDS + " ") or folded


def _check_role(member: Member) -> None:
    if member.role not in _MAY_WRITE:
        raise Forbidden(Reason.FAQ_NOT_YOURS, "Ask an admin of your organisation to write its FAQs.")


def _unless_refused(written: Faq | Duplicate | Full) -> Faq:
    match written:
        case Duplicate(faq_id):
            message = "There is a FAQ with this question. Change that one."
            raise AlreadyExists(Reason.FAQ_DUPLICATE, message, faq_id=faq_id)
        case Full(limit):
            message = "The organisation has as many FAQs as allowed. Delete some."
            raise Exhausted(Reason.FAQS_FULL, message, limit_faqs=limit)
    return written


def _not_found() -> NotFound:
    return NotFound(Reason.FAQ_NOT_FOUND, "There is no such FAQ.")
