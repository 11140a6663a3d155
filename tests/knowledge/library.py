"""An organisation to search in: its passages in a real Milvus, beside an embedding model that knows English alone."""

import hashlib
from collections.abc import Sequence
from random import Random
from uuid import UUID, uuid4

from services.knowledge.document import Document, File, Member, Visibility
from services.knowledge.index import PassageIndex
from services.knowledge.indexing import Extracted
from services.knowledge.passages import Passage
from services.knowledge.reranking import Reranking
from services.knowledge.search import FoundPassage, Search, Vector
from services.knowledge.vocabulary import Vocabulary
from tests.knowledge.fakes import FakeRecord, vector_of
from tests.knowledge.index_fakes import FIRST, indexes_of

SAME_MEANING = {"vacation": "leave", "holidays": "leave", "long": "notice", "quit": "notice"}


class EnglishModel:
    """Implements Embedding. Other scripts come out as noise: near each other, however little they have in common."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        return [self._english(text) if text.isascii() else self._noise(text) for text in texts]

    def _english(self, text: str) -> Vector:
        words = text.lower().strip("?.").split()
        return vector_of(" ".join(SAME_MEANING.get(word, word) for word in words))

    def _noise(self, text: str) -> Vector:
        random = Random(hashlib.sha256(text.encode()).digest())
        vector = [1 + random.random() / 4 for _ in range(384)]
        length = sum(value * value for value in vector) ** 0.5
        return [value / length for value in vector]


class Library:
    """An organisation."""

    def __init__(self, index: PassageIndex) -> None:
        self._index, self._model, self._record = index, EnglishModel(), FakeRecord()
        self._indexes = indexes_of(self._record, self._model, index)
        self._member = Member(uuid4(), uuid4(), "member")
        self._search = Search(self._indexes, Vocabulary(self._record), self._record)

    def rerank_by(self, reranking: Reranking) -> None:
        """With a rerank model, from now on."""
        self._search = Search(self._indexes, Vocabulary(self._record), self._record, reranking)

    async def hold(self, *texts: str, visibility: Visibility = Visibility.ORGANISATION) -> Document:
        """A document with these passages, and others between them that nobody asks for."""
        return await self.hold_passages(
            *(Passage(2 * place, text) for place, text in enumerate(texts)), visibility=visibility
        )

    async def hold_apart(self, *texts: str) -> None:
        """A document for each."""
        for text in texts:
            await self.hold(text)

    async def hold_passages(self, *passages: Passage, visibility: Visibility = Visibility.ORGANISATION) -> Document:
        file = File(uuid4(), "notes.txt", 10, "0" * 64, visibility=visibility, allow_duplicate=True)
        document = await self._record.add_document(self._member, uuid4(), file)
        assert isinstance(document, Document)
        begun = await self._record.begin_indexing(document.tenant_id, document.id)
        assert begun
        await self._record.announce(begun, Extracted("text/plain", 0, len(passages), iter(passages)))
        vectors = await self._model.embed([passage.searchable_text for passage in passages])
        await self._index.write(begun, passages, vectors)
        await self._record.add_passages(begun, passages)
        await self._record.complete(begun, len(passages), FIRST.id)
        return document

    async def find(
        self,
        question: str,
        limit: int = 3,
        tenant_id: UUID | None = None,
        user_id: UUID | None = None,
        history: Sequence[str] = (),
    ) -> list[str]:
        found = await self.search(question, limit, tenant_id, user_id, history)
        return [passage.passage.text for passage in found]

    async def search(
        self,
        question: str,
        limit: int = 3,
        tenant_id: UUID | None = None,
        user_id: UUID | None = None,
        history: Sequence[str] = (),
    ) -> Sequence[FoundPassage]:
        tenant_id, user_id = tenant_id or self._member.tenant_id, user_id or self._member.user_id
        return await self._search(tenant_id, question, limit, user_id, history)
