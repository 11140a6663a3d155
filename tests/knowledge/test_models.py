"""An index by another real embedding model, with other dimensions, on the real Triton."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import SimpleNamespace
from uuid import uuid4

import pytest

from services.knowledge.embedding import EmbeddingModel
from services.knowledge.index import PassageIndexes
from services.knowledge.indexes.version import Index, IndexVersion
from services.knowledge.search import Search
from services.knowledge.vocabulary import Vocabulary
from services.shared.errors import Invalid, Reason
from services.shared.postgres.database import Database
from stack import triton
from stack.catalog import running
from stack.mesh import PROJECT, Mesh
from stack.part import Part
from tests.knowledge.test_reconcile import Workshop
from tests.knowledge.test_storage import originals_of

REPOSITORY = PROJECT / "tests" / "knowledge" / "models"
OTHER = "embedding-256"


def _triton(mesh: Mesh) -> Part:
    part = triton.part(replace(mesh, options=replace(mesh.options, chat_models=("echo",))))
    return replace(part, command=(*part.command, f"--model-repository={REPOSITORY}", f"--load-model={OTHER}"))


@pytest.fixture(scope="module")
async def model(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddingModel]:
    async with running(tmp_path_factory.mktemp("triton"), _triton) as mesh:
        name = "knowledge"
        files = SimpleNamespace(
            tls_ca_file=mesh.ca_file, tls_cert_file=mesh.cert_file(name), tls_key_file=mesh.key_file(name)
        )
        async with EmbeddingModel(mesh.address("triton"), "embedding", files) as model:
            yield model


async def test_each_model_has_its_dimensions(model: EmbeddingModel) -> None:
    assert await model.dimensions("embedding") == 384
    assert await model.dimensions(OTHER) == 256
    [vector] = await model.named(OTHER).embed(["cats"])
    assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-5)
    for name in ("none-such", "echo"):
        with pytest.raises(Invalid) as refused:
            await model.dimensions(name)
        assert refused.value.reason is Reason.EMBEDDING_MODEL_UNKNOWN


async def test_another_model_takes_over(
    model: EmbeddingModel,
    database_for: Callable[[str], AbstractAsyncContextManager[Database]],
    stores: Mesh,
) -> None:
    async with database_for("knowledge") as database, PassageIndexes(f"http://{stores.address('milvus')}") as indexes:
        connection = await database.connect()
        await connection.execute("ALTER TABLE indexes ALTER id RESTART 5000")
        await connection.close()
        workshop = Workshop(database, indexes, originals_of(stores))

        def opened(version: IndexVersion) -> Index:
            return Index(version, model.named(version.embedding_model), indexes.of(version))

        workshop.indexes._opened = opened
        await workshop.keeper.step()
        document = await workshop.indexed("The cat sleeps on the sofa.", "Taxes are due in May.", "Paris is in France.")
        search = Search(workshop.indexes, Vocabulary(workshop.documents), workshop.documents)
        version = await workshop.record.begin(uuid4(), OTHER, await model.dimensions(OTHER))
        assert version
        for built in (False, True):
            if built:
                await workshop.keeper.step()
            [active, *_] = await workshop.indexes.live()
            assert (active.version.id == version.id) is built
            for question, start in (("kitten on a couch", "The cat"), ("fiscal deadline", "Taxes")):
                [found, *_] = await search(document.tenant_id, question, 1)
                assert found.passage.text.startswith(start)
        await indexes.drop(version.id)
