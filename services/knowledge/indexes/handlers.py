"""The RPCs of parley.knowledge.v1.IndexService, for the operator of the mesh."""

from collections.abc import AsyncIterator
from uuid import UUID

import grpc

from parley.knowledge.v1 import index_service_pb2
from parley.knowledge.v1.index_service_pb2 import (
    CancelRebuildRequest,
    CancelRebuildResponse,
    CheckIndexRequest,
    CheckIndexResponse,
    GetIndexRequest,
    GetIndexResponse,
    RebuildIndexRequest,
    RebuildIndexResponse,
)
from parley.knowledge.v1.index_service_pb2_grpc import IndexServiceServicer
from services.knowledge.indexes.rebuilding import Progress, Rebuilding
from services.knowledge.indexes.reconcile import Reconcile
from services.knowledge.indexes.version import IndexState

SERVICE = "parley.knowledge.v1.IndexService"
METHODS = frozenset(
    f"/{SERVICE}/{method.name}" for method in index_service_pb2.DESCRIPTOR.services_by_name["IndexService"].methods
)
ENDLESS = frozenset({f"/{SERVICE}/RebuildIndex", f"/{SERVICE}/CheckIndex"})


class IndexService(IndexServiceServicer):
    """The indexes of all organisations."""

    def __init__(self, rebuilding: Rebuilding, reconcile: Reconcile) -> None:
        self._rebuilding = rebuilding
        self._reconcile = reconcile

    async def GetIndex(self, request: GetIndexRequest, context: grpc.aio.ServicerContext) -> GetIndexResponse:
        return GetIndexResponse(indexes=map(_index, await self._rebuilding.indexes()))

    async def RebuildIndex(
        self, request: RebuildIndexRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[RebuildIndexResponse]:
        asked = (UUID(request.request_id), request.embedding_model, request.from_originals)
        async for progress in self._rebuilding.rebuild(*asked):
            yield RebuildIndexResponse(index=_index(progress))

    async def CancelRebuild(
        self, request: CancelRebuildRequest, context: grpc.aio.ServicerContext
    ) -> CancelRebuildResponse:
        await self._rebuilding.cancel()
        return CancelRebuildResponse()

    async def CheckIndex(
        self, request: CheckIndexRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[CheckIndexResponse]:
        yield CheckIndexResponse(**vars(await self._reconcile()))


def _index(progress: Progress) -> index_service_pb2.Index:
    version, held = progress
    return index_service_pb2.Index(
        id=version.id,
        embedding_model=version.embedding_model,
        dimensions=version.dimensions,
        active=version.state is IndexState.ACTIVE,
        documents=held.documents,
        documents_held=held.documents_held,
        passages=held.passages,
        passages_held=held.passages_held,
    )
