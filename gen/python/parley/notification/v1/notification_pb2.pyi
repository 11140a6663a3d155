import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from parley.errors.v1 import error_reason_pb2 as _error_reason_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Notification(_message.Message):
    __slots__ = ("id", "sequence", "create_time", "document_ready", "document_refused", "answer_ready")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_READY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_REFUSED_FIELD_NUMBER: _ClassVar[int]
    ANSWER_READY_FIELD_NUMBER: _ClassVar[int]
    id: str
    sequence: int
    create_time: _timestamp_pb2.Timestamp
    document_ready: DocumentReady
    document_refused: DocumentRefused
    answer_ready: AnswerReady
    def __init__(self, id: _Optional[str] = ..., sequence: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., document_ready: _Optional[_Union[DocumentReady, _Mapping]] = ..., document_refused: _Optional[_Union[DocumentRefused, _Mapping]] = ..., answer_ready: _Optional[_Union[AnswerReady, _Mapping]] = ...) -> None: ...

class DocumentReady(_message.Message):
    __slots__ = ("document_id", "filename", "passages")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    filename: str
    passages: int
    def __init__(self, document_id: _Optional[str] = ..., filename: _Optional[str] = ..., passages: _Optional[int] = ...) -> None: ...

class DocumentRefused(_message.Message):
    __slots__ = ("document_id", "filename", "reason", "message")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    filename: str
    reason: _error_reason_pb2.ErrorReason
    message: str
    def __init__(self, document_id: _Optional[str] = ..., filename: _Optional[str] = ..., reason: _Optional[_Union[_error_reason_pb2.ErrorReason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class AnswerReady(_message.Message):
    __slots__ = ("conversation_id", "turn_id", "message_id")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    turn_id: str
    message_id: str
    def __init__(self, conversation_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., message_id: _Optional[str] = ...) -> None: ...
