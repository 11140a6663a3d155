from buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from parley.chat.v1 import turn_pb2 as _turn_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StartTurnRequest(_message.Message):
    __slots__ = ("request_id", "conversation_id", "text", "options")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    conversation_id: str
    text: str
    options: TurnOptions
    def __init__(self, request_id: _Optional[str] = ..., conversation_id: _Optional[str] = ..., text: _Optional[str] = ..., options: _Optional[_Union[TurnOptions, _Mapping]] = ...) -> None: ...

class TurnOptions(_message.Message):
    __slots__ = ("model", "max_output_tokens", "temperature", "search")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    model: str
    max_output_tokens: int
    temperature: float
    search: bool
    def __init__(self, model: _Optional[str] = ..., max_output_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., search: _Optional[bool] = ...) -> None: ...

class StartTurnResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _turn_pb2.TurnEvent
    def __init__(self, event: _Optional[_Union[_turn_pb2.TurnEvent, _Mapping]] = ...) -> None: ...
