"""What happens around every call, outermost first: telemetry, errors, deadline, peer, request shape, caller.

All of it is one interceptor, so that a stream's messages pass one generator instead of five.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from protovalidate import Violation

from services.shared.errors import Invalid, Reason, Refusal, Unauthenticated, Unavailable
from services.shared.serving import deadline, telemetry
from services.shared.serving.identity import AllowList, Caller, TokenVerifier
from services.shared.serving.status import abort_internal, abort_with, code_of

_log = logging.getLogger("parley.serving")
_INFRASTRUCTURE = ("/grpc.health.v1.", "/grpc.reflection.")


@dataclass(frozen=True)
class CallRules:
    """Which methods (/package.Service/Method) differ from the rule "a valid access token, now"."""

    # Need no token.
    open_methods: frozenset[str] = frozenset()
    # Accept a token that expired at most so many seconds ago: calls that end what a valid token began.
    token_grace_s: Mapping[str, float] = field(default_factory=dict)
    # Streams that only their readers would end: a service that stops ends them at once, and readers come back.
    endless_methods: frozenset[str] = frozenset()


class CallContext:
    """The gRPC context of a call, with its verified caller (see identity.caller_of)."""

    def __init__(self, context: grpc.aio.ServicerContext, caller: Caller | None) -> None:
        self._context = context
        self.caller = caller

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Admits, refuses, times and records every call of a server."""

    def __init__(
        self,
        verifier: TokenVerifier,
        rules: CallRules,
        allow_list: AllowList | None,
        max_stream_s: float,
        request_within_s: float = 10.0,
    ) -> None:
        """Without an allow list peers are not checked: a sidecar has done it.

        `request_within_s`: how long the one request of a call is waited for, however long its answer may take.
        """
        self._verifier = verifier
        self._rules = rules
        self._allow_list = allow_list
        self._max_stream_s = max_stream_s
        self._request_within_s = request_within_s
        self._validator = protovalidate.Validator()
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}
        self._running: dict[asyncio.Task[Any], str] = {}
        self._ends: Callable[[str], bool] = lambda method: False

    def end_endless_streams(self) -> None:
        """End them with SERVICE_UNAVAILABLE, those to come too."""
        self._end(lambda method: method in self._rules.endless_methods or method.startswith(_INFRASTRUCTURE))

    def end_all(self) -> None:
        """The same for every call."""
        self._end(lambda method: True)

    def _end(self, ends: Callable[[str], bool]) -> None:
        self._ends = ends
        for task, method in self._running.items():
            if ends(method):
                task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        if (wrapped := self._wrapped.get(method)) is None:
            if (handler := await continuation(handler_call_details)) is None:
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        inner = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        streams = handler.request_streaming or handler.response_streaming
        longest_s = self._max_stream_s if streams else deadline.DEFAULT_UNARY_S

        async def checked(requests: AsyncIterator[Message | None], context: grpc.aio.ServicerContext) -> Any:
            return self._each_checked(requests) if handler.request_streaming else await self._only(context)

        async def unary(requests: Any, context: grpc.aio.ServicerContext) -> Message:
            async with self._around(method, context, longest_s) as call:
                return await inner(await checked(requests, context), call)

        async def stream(requests: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Message]:
            async with self._around(method, context, longest_s) as call:
                answers = inner(await checked(requests, context), call)
                if inspect.isawaitable(answers):  # health's Watch writes to the context instead of yielding
                    await answers
                    return
                async for message in answers:
                    yield message

        # A single request is read as a stream of one, which is the same on the wire: a call that ends without a whole
        # message would never reach a handler that takes one, nor be answered.
        codec = _tolerant(handler.request_deserializer), handler.response_serializer
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, *codec)
        return grpc.stream_unary_rpc_method_handler(unary, *codec)

    @asynccontextmanager
    async def _around(
        self, method: str, context: grpc.aio.ServicerContext, limit_s: float
    ) -> AsyncIterator[CallContext]:
        began_s = time.perf_counter()
        metadata = context.invocation_metadata() or ()
        facts: dict[str, object] = {"trace_id": telemetry.trace_id_of(metadata)}
        code = grpc.StatusCode.OK
        try:
            async with deadline.enforced(context, limit_s):
                if self._allow_list:
                    self._allow_list.check(method, context)
                caller = self._caller(method, metadata)
                if caller:
                    facts |= {"tenant": caller.tenant_id}
                with self._ended_with_the_service(method):
                    yield CallContext(context, caller)
        except Refusal as refusal:
            facts["reason"] = refusal.reason
            code = code_of(refusal)
            await abort_with(context, refusal)
        except (asyncio.CancelledError, GeneratorExit):  # the second: a stream that nobody reads on
            code = grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:  # health and reflection end their calls themselves
            code = context.code()
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            _log.exception("unexpected failure", extra={"facts": {"method": method, **facts}})
            await abort_internal(context, str(facts["trace_id"]))
        finally:
            telemetry.record_rpc(method, code, time.perf_counter() - began_s, facts)

    @contextmanager
    def _ended_with_the_service(self, method: str) -> Iterator[None]:
        stopping = Unavailable(Reason.SERVICE_UNAVAILABLE, "The service is stopping: come back.")
        if self._ends(method):
            raise stopping
        task = asyncio.current_task()
        assert task
        self._running[task] = method
        try:
            yield
        except asyncio.CancelledError as cancelled:
            if not self._ends(method):
                raise
            task.uncancel()
            raise stopping from cancelled
        finally:
            del self._running[task]

    def _caller(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Caller | None:
        if method in self._rules.open_methods or method.startswith(_INFRASTRUCTURE):
            return None
        header = next((value for key, value in metadata if key == "authorization"), "")
        scheme, _, token = str(header).partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = "Send an access token: `authorization: Bearer ...`."
            raise Unauthenticated(Reason.TOKEN_MISSING, message)
        return self._verifier.verify(token, grace_s=self._rules.token_grace_s.get(method, 0))

    def _checked(self, request: Message | None) -> Message:
        if request is None:
            raise Invalid(Reason.MALFORMED_REQUEST, "The bytes are not a message of the expected type.")
        violations = self._validator.collect_violations(request)
        faults = {_path(violation): violation.proto.message for violation in violations}
        faults |= dict.fromkeys(_null_characters(request), "must not hold the character U+0000")
        if faults:
            message = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
            raise Invalid(Reason.INVALID_FIELD, message[:1000], violations=faults)
        return request

    async def _only(self, context: grpc.aio.ServicerContext) -> Message:
        try:
            async with asyncio.timeout(self._request_within_s):
                request = await context.read()
        except TimeoutError as error:
            raise Invalid(Reason.MALFORMED_REQUEST, "The request did not arrive in time.") from error
        if request is grpc.aio.EOF:
            raise Invalid(Reason.MALFORMED_REQUEST, "The call ended without a whole message.")
        return self._checked(request)

    async def _each_checked(self, requests: AsyncIterator[Message | None]) -> AsyncIterator[Message]:
        async for request in requests:
            yield self._checked(request)


def _tolerant(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Message | None]:
    """Bytes that are no message become None, refused by `_checked`; gRPC itself would answer INTERNAL."""

    def parse(data: bytes) -> Message | None:
        try:
            return deserialize(data)
        except DecodeError:
            return None

    return parse


def _null_characters(message: Message, prefix: str = "") -> Iterator[str]:
    """The paths of strings that hold U+0000, which PostgreSQL can't store. There are no maps in the contract."""
    for descriptor, value in message.ListFields():
        path = prefix + descriptor.name
        values = value if descriptor.is_repeated else (value,)
        if descriptor.type == FieldDescriptor.TYPE_STRING:
            if any("\0" in text for text in values):
                yield path
        elif descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for each in values:
                yield from _null_characters(each, f"{path}.")


def _path(violation: Violation) -> str:
    elements = violation.proto.field.elements if violation.proto.field else ()
    return ".".join(element.field_name for element in elements) or "request"
