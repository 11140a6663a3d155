import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from parley.errors.v1 import error_reason_pb2 as _error_reason_pb2
from parley.session.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]

class CancellationCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCELLATION_CAUSE_UNSPECIFIED: _ClassVar[CancellationCause]
    CANCELLATION_CAUSE_REQUESTED: _ClassVar[CancellationCause]
    CANCELLATION_CAUSE_NO_READER: _ClassVar[CancellationCause]
    CANCELLATION_CAUSE_DEADLINE: _ClassVar[CancellationCause]
    CANCELLATION_CAUSE_STOPPED: _ClassVar[CancellationCause]

class TurnState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_STATE_UNSPECIFIED: _ClassVar[TurnState]
    TURN_STATE_RUNNING: _ClassVar[TurnState]
    TURN_STATE_COMPLETED: _ClassVar[TurnState]
    TURN_STATE_FAILED: _ClassVar[TurnState]
    TURN_STATE_CANCELLED: _ClassVar[TurnState]

class TurnRating(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_RATING_UNSPECIFIED: _ClassVar[TurnRating]
    TURN_RATING_GOOD: _ClassVar[TurnRating]
    TURN_RATING_BAD: _ClassVar[TurnRating]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
CANCELLATION_CAUSE_UNSPECIFIED: CancellationCause
CANCELLATION_CAUSE_REQUESTED: CancellationCause
CANCELLATION_CAUSE_NO_READER: CancellationCause
CANCELLATION_CAUSE_DEADLINE: CancellationCause
CANCELLATION_CAUSE_STOPPED: CancellationCause
TURN_STATE_UNSPECIFIED: TurnState
TURN_STATE_RUNNING: TurnState
TURN_STATE_COMPLETED: TurnState
TURN_STATE_FAILED: TurnState
TURN_STATE_CANCELLED: TurnState
TURN_RATING_UNSPECIFIED: TurnRating
TURN_RATING_GOOD: TurnRating
TURN_RATING_BAD: TurnRating

class TurnEvent(_message.Message):
    __slots__ = ("turn_id", "sequence", "started", "sources", "text_delta", "usage", "completed", "failed", "cancelled", "rewound")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    TEXT_DELTA_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    REWOUND_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    sequence: int
    started: TurnStarted
    sources: TurnSources
    text_delta: TextDelta
    usage: _session_pb2.Usage
    completed: TurnCompletion
    failed: TurnFailure
    cancelled: TurnCancellation
    rewound: TurnRewound
    def __init__(self, turn_id: _Optional[str] = ..., sequence: _Optional[int] = ..., started: _Optional[_Union[TurnStarted, _Mapping]] = ..., sources: _Optional[_Union[TurnSources, _Mapping]] = ..., text_delta: _Optional[_Union[TextDelta, _Mapping]] = ..., usage: _Optional[_Union[_session_pb2.Usage, _Mapping]] = ..., completed: _Optional[_Union[TurnCompletion, _Mapping]] = ..., failed: _Optional[_Union[TurnFailure, _Mapping]] = ..., cancelled: _Optional[_Union[TurnCancellation, _Mapping]] = ..., rewound: _Optional[_Union[TurnRewound, _Mapping]] = ...) -> None: ...

class TurnStarted(_message.Message):
    __slots__ = ("conversation_id", "model", "create_time", "resumable")
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    conversation_id: str
    model: str
    create_time: _timestamp_pb2.Timestamp
    resumable: bool
    def __init__(self, conversation_id: _Optional[str] = ..., model: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resumable: _Optional[bool] = ...) -> None: ...

class TurnSources(_message.Message):
    __slots__ = ("citations", "degraded")
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    citations: _containers.RepeatedCompositeFieldContainer[_session_pb2.Citation]
    degraded: bool
    def __init__(self, citations: _Optional[_Iterable[_Union[_session_pb2.Citation, _Mapping]]] = ..., degraded: _Optional[bool] = ...) -> None: ...

class TextDelta(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class TurnCompletion(_message.Message):
    __slots__ = ("message_id", "finish_reason")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    finish_reason: FinishReason
    def __init__(self, message_id: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ...) -> None: ...

class TurnFailure(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: _error_reason_pb2.ErrorReason
    message: str
    def __init__(self, reason: _Optional[_Union[_error_reason_pb2.ErrorReason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class TurnCancellation(_message.Message):
    __slots__ = ("message_id", "cause", "freed_after_ms")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    FREED_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    cause: CancellationCause
    freed_after_ms: int
    def __init__(self, message_id: _Optional[str] = ..., cause: _Optional[_Union[CancellationCause, str]] = ..., freed_after_ms: _Optional[int] = ...) -> None: ...

class TurnRewound(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Turn(_message.Message):
    __slots__ = ("id", "request_id", "conversation_id", "model", "state", "create_time", "first_text_time", "end_time", "usage", "message_id", "failure", "rating", "rating_reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    FIRST_TEXT_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RATING_FIELD_NUMBER: _ClassVar[int]
    RATING_REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    request_id: str
    conversation_id: str
    model: str
    state: TurnState
    create_time: _timestamp_pb2.Timestamp
    first_text_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    usage: _session_pb2.Usage
    message_id: str
    failure: TurnFailure
    rating: TurnRating
    rating_reason: str
    def __init__(self, id: _Optional[str] = ..., request_id: _Optional[str] = ..., conversation_id: _Optional[str] = ..., model: _Optional[str] = ..., state: _Optional[_Union[TurnState, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., first_text_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., usage: _Optional[_Union[_session_pb2.Usage, _Mapping]] = ..., message_id: _Optional[str] = ..., failure: _Optional[_Union[TurnFailure, _Mapping]] = ..., rating: _Optional[_Union[TurnRating, str]] = ..., rating_reason: _Optional[str] = ...) -> None: ...
