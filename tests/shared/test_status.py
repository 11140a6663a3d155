"""A refusal keeps all that it says on its way over one service, or two."""

from datetime import timedelta

import grpc
import pytest

from services.shared import errors
from services.shared.errors import Reason, Refusal
from services.shared.serving.status import refusal_in
from tests.conftest import ServeLocally, Signer
from tests.refusals import details_of, failure_of
from tests.shared.serving import LIST, Context, Given

CODES = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def _said(refusal: Refusal) -> tuple[object, ...]:
    return (
        type(refusal),
        refusal.reason,
        refusal.message,
        refusal.facts,
        refusal.retry_after_s,
        refusal.violations,
    )


async def _answer(serve_locally: ServeLocally, signer: Signer, refusal: Refusal) -> grpc.aio.AioRpcError:
    async def refuse(context: Context) -> None:
        raise refusal

    async with serve_locally(Given(refuse).register) as channel:
        return await failure_of(channel.unary_unary(LIST)(b"", metadata=signer.metadata(), timeout=10))


def test_every_kind_of_refusal_has_a_code() -> None:
    assert set(CODES) == set(Refusal.__subclasses__())


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
async def test_a_refusal_arrives_whole_and_passes_on_whole(
    serve_locally: ServeLocally, signer: Signer, kind: type[Refusal]
) -> None:
    sent = kind(
        Reason.MODEL_UNKNOWN, "Größe: 3 €, שלום", retry_after_s=2.5, violations={"a.b": "too long"}, models="a, b"
    )
    sent.facts["message"] = "a fact may have any name"
    first = await _answer(serve_locally, signer, sent)
    assert (first.code(), first.details()) == (CODES[kind], sent.message)
    received = refusal_in(first)
    assert received
    assert _said(received) == _said(sent)
    second = refusal_in(await _answer(serve_locally, signer, received))
    assert second
    assert _said(second) == _said(sent)


async def test_unavailable_says_when_to_come_back_and_others_only_if_they_know(
    serve_locally: ServeLocally, signer: Signer
) -> None:
    unavailable = errors.Unavailable(Reason.RECORD_UNAVAILABLE, "Retry.")
    details = details_of(await _answer(serve_locally, signer, unavailable))
    assert details["RetryInfo"].retry_delay.ToTimedelta() == timedelta(seconds=1)
    details = details_of(await _answer(serve_locally, signer, errors.NotFound(Reason.TURN_NOT_FOUND, "No such turn.")))
    assert set(details) == {"ErrorInfo"}
    assert details["ErrorInfo"].domain == "parley"


async def test_a_failure_of_the_transport_is_no_refusal() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        error = await failure_of(channel.unary_unary(LIST)(b"", timeout=5))
    assert refusal_in(error) is None
