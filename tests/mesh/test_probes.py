"""A short form of `python -m bench.probes`: calls of every RPC of knowledge about what somebody else has."""

import grpc

from bench.forged import services
from bench.probes import PACKAGE, probe
from tests.mesh.running import RunningMesh

PROBES = 1200


async def test_no_call_brings_a_byte_of_somebody_else(mesh: RunningMesh, edge: grpc.aio.Channel) -> None:
    # Past the edge, whose limits on one user's calls would answer most of them.
    async with mesh.replica("knowledge-1") as knowledge:
        verdict = await probe(knowledge, mesh.data_dir, edge, PROBES)
    assert verdict.leaks == []
    assert verdict.wrong == []
    asked = {f"{service.name}.{method.name}" for service in services(PACKAGE) for method in service.methods}
    assert verdict.codes.keys() == asked
    answered = {name for name, codes in verdict.codes.items() if codes.keys() - {"INVALID_ARGUMENT", "UNAUTHENTICATED"}}
    assert answered == asked  # or the probes stop at the rules of the contract
