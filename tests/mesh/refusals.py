"""Reading refusals as a client of another kind would: from the status details."""

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Message]:
    """The google.rpc details of a refusal by name: ErrorInfo, BadRequest, RetryInfo."""
    found: dict[str, Message] = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for packed in status_pb2.Status.FromString(value).details:
                name = packed.TypeName().rpartition(".")[2]
                detail = getattr(error_details_pb2, name)()
                packed.Unpack(detail)
                found[name] = detail
    return found


def reason_of(error: grpc.aio.AioRpcError) -> str:
    info = details_of(error).get("ErrorInfo")
    return info.reason if info else ""
