"""Refusals as gRPC statuses and back: the one place that knows google.rpc.Status."""

import asyncio

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from services.shared import errors
from services.shared.errors import Reason, Refusal

DOMAIN = "parley"
_DETAILS_KEY = "grpc-status-details-bin"
_CODES: dict[type[Refusal], grpc.StatusCode] = {
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
_KINDS = {code: kind for kind, code in _CODES.items()}
_DETAILS = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
_DEFAULT_RETRY_S = 1.0


def code_of(refusal: Refusal) -> grpc.StatusCode:
    """The status code that stands for a kind of refusal."""
    return _CODES[type(refusal)]


async def abort_with(context: grpc.aio.ServicerContext, refusal: Refusal) -> None:
    """End the call with the refusal's status and details; always raises grpc.aio.AbortError."""
    await _abort(context, code_of(refusal), refusal)


async def abort_internal(context: grpc.aio.ServicerContext, trace_id: str) -> None:
    """End the call with INTERNAL and nothing but the trace id."""
    message = f"Something broke on our side. Report trace id {trace_id}."
    await _abort(context, grpc.StatusCode.INTERNAL, Refusal(Reason.INTERNAL, message, trace_id=trace_id))


def refusal_in(error: grpc.aio.AioRpcError) -> Refusal | None:
    """The refusal that a Parley peer answered with; None if the failure is the transport's own."""
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY:
            continue
        info, bad_request, retry = (kind() for kind in _DETAILS)
        for detail in status_pb2.Status.FromString(value).details:
            any(detail.Unpack(part) for part in (info, bad_request, retry))
        if info.domain != DOMAIN or info.reason not in Reason.__members__ or error.code() not in _KINDS:
            return None
        refusal = _KINDS[error.code()](
            Reason(info.reason),
            error.details() or "",
            retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
            violations={fault.field: fault.description for fault in bad_request.field_violations},
        )
        refusal.facts = dict(info.metadata)
        return refusal
    return None


async def _abort(context: grpc.aio.ServicerContext, code: grpc.StatusCode, refusal: Refusal) -> None:
    details = (_DETAILS_KEY, _status(code, refusal).SerializeToString())
    try:
        await context.abort(code, refusal.message, trailing_metadata=(details,))
    except grpc.aio.InternalError as error:  # the call is over: gRPC itself refused a message that was too large
        raise asyncio.CancelledError from error


def _status(code: grpc.StatusCode, refusal: Refusal) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=refusal.message)
    _add(status, error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN, metadata=refusal.facts))
    if refusal.violations:
        bad_request = error_details_pb2.BadRequest()
        for name, description in refusal.violations.items():
            bad_request.field_violations.add(field=name, description=description)
        _add(status, bad_request)
    retry_after_s = refusal.retry_after_s
    if retry_after_s is None and code is grpc.StatusCode.UNAVAILABLE:
        retry_after_s = _DEFAULT_RETRY_S
    if retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after_s * 1000))
        _add(status, retry)
    return status


def _add(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)
