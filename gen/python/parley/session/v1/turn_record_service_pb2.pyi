from buf.validate import validate_pb2 as _validate_pb2
from parley.session.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OpenTurnRequest(_message.Message):
    __slots__ = ("turn_id", "conversation_id", "text", "history_limit", "follows_turn_id", "replaces_turn_id")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_TURN_ID_FIELD_NUMBER: _ClassVar[int]
    REPLACES_TURN_ID_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    conversation_id: str
    text: str
    history_limit: int
    follows_turn_id: str
    replaces_turn_id: str
    def __init__(self, turn_id: _Optional[str] = ..., conversation_id: _Optional[str] = ..., text: _Optional[str] = ..., history_limit: _Optional[int] = ..., follows_turn_id: _Optional[str] = ..., replaces_turn_id: _Optional[str] = ...) -> None: ...

class OpenTurnResponse(_message.Message):
    __slots__ = ("question", "history")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    question: _session_pb2.Message
    history: _containers.RepeatedCompositeFieldContainer[_session_pb2.Message]
    def __init__(self, question: _Optional[_Union[_session_pb2.Message, _Mapping]] = ..., history: _Optional[_Iterable[_Union[_session_pb2.Message, _Mapping]]] = ...) -> None: ...

class CloseTurnRequest(_message.Message):
    __slots__ = ("turn_id", "text", "state", "citations", "usage")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    text: str
    state: _session_pb2.MessageState
    citations: _containers.RepeatedCompositeFieldContainer[_session_pb2.Citation]
    usage: _session_pb2.Usage
    def __init__(self, turn_id: _Optional[str] = ..., text: _Optional[str] = ..., state: _Optional[_Union[_session_pb2.MessageState, str]] = ..., citations: _Optional[_Iterable[_Union[_session_pb2.Citation, _Mapping]]] = ..., usage: _Optional[_Union[_session_pb2.Usage, _Mapping]] = ...) -> None: ...

class CloseTurnResponse(_message.Message):
    __slots__ = ("answer", "state")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    answer: _session_pb2.Message
    state: _session_pb2.MessageState
    def __init__(self, answer: _Optional[_Union[_session_pb2.Message, _Mapping]] = ..., state: _Optional[_Union[_session_pb2.MessageState, str]] = ...) -> None: ...
