"""What a client reads out of a refusal, in either of its forms."""

import base64

import grpc
import httpx
from google.rpc import error_details_pb2, status_pb2


def rest_refusal(response: httpx.Response) -> tuple[int, str]:
    """HTTP status and reason of the one JSON form."""
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert body["message"]
    info = body["details"][0]
    assert (info["@type"], info["domain"]) == ("type.googleapis.com/google.rpc.ErrorInfo", "parley")
    return response.status_code, info["reason"]


def grpc_refusal(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return error.code(), reason_in(bytes(details), error.code().value[0], error.details() or "")


def web_refusal(response: httpx.Response) -> tuple[int, str]:
    """gRPC status and reason of a Trailers-Only answer."""
    assert response.status_code == 200
    assert not response.content
    code, details = int(response.headers["grpc-status"]), response.headers["grpc-status-details-bin"]
    return code, reason_in(
        base64.b64decode(details + "=" * (-len(details) % 4)), code, response.headers["grpc-message"]
    )


def reason_in(details: bytes, code: int, message: str) -> str:
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (code, message)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason
