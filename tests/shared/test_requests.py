"""Calls whose one request does not come: each is answered, and none holds on to the server."""

import grpc
import pytest

from services.shared.serving.identity import TokenVerifier
from services.shared.serving.interceptor import CallInterceptor, CallRules
from tests.conftest import ServeLocally, Signer
from tests.refusals import failure_of, reason_of
from tests.shared.serving import LIST, WATCH, Given

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", [LIST, WATCH])
async def test_a_call_that_ends_without_a_request_is_refused(
    serve_locally: ServeLocally, signer: Signer, method: str
) -> None:
    async with serve_locally(Given().register) as channel:
        call = channel.stream_stream(method)(metadata=signer.metadata(), timeout=10)
        await call.done_writing()
        error = await failure_of(call.read())
    assert (error.code(), reason_of(error)) == (INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_a_message_that_grpc_finds_too_large_leaves_no_traceback(
    serve_locally: ServeLocally, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve_locally(Given().register) as channel:
        call = channel.unary_unary(LIST)
        error = await failure_of(call(b"x" * 5_000_000, metadata=signer.metadata(), timeout=10))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await call(b"", metadata=signer.metadata(), timeout=10)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_stream_whose_request_never_comes_ends(signer: Signer) -> None:
    calls = CallInterceptor(TokenVerifier(signer.jwks_file), CallRules(), None, 60.0, request_within_s=0.05)
    server = grpc.aio.server(interceptors=[calls])
    Given().register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(WATCH)(metadata=signer.metadata(), timeout=10)
        error = await failure_of(call.read())
    await server.stop(None)
    assert (error.code(), reason_of(error)) == (INVALID_ARGUMENT, "MALFORMED_REQUEST")
