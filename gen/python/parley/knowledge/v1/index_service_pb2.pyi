from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Index(_message.Message):
    __slots__ = ("id", "embedding_model", "dimensions", "active", "documents", "documents_held", "passages", "passages_held")
    ID_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_HELD_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_HELD_FIELD_NUMBER: _ClassVar[int]
    id: int
    embedding_model: str
    dimensions: int
    active: bool
    documents: int
    documents_held: int
    passages: int
    passages_held: int
    def __init__(self, id: _Optional[int] = ..., embedding_model: _Optional[str] = ..., dimensions: _Optional[int] = ..., active: _Optional[bool] = ..., documents: _Optional[int] = ..., documents_held: _Optional[int] = ..., passages: _Optional[int] = ..., passages_held: _Optional[int] = ...) -> None: ...

class GetIndexRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetIndexResponse(_message.Message):
    __slots__ = ("indexes",)
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    indexes: _containers.RepeatedCompositeFieldContainer[Index]
    def __init__(self, indexes: _Optional[_Iterable[_Union[Index, _Mapping]]] = ...) -> None: ...

class RebuildIndexRequest(_message.Message):
    __slots__ = ("request_id", "embedding_model", "from_originals")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_MODEL_FIELD_NUMBER: _ClassVar[int]
    FROM_ORIGINALS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    embedding_model: str
    from_originals: bool
    def __init__(self, request_id: _Optional[str] = ..., embedding_model: _Optional[str] = ..., from_originals: _Optional[bool] = ...) -> None: ...

class RebuildIndexResponse(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: Index
    def __init__(self, index: _Optional[_Union[Index, _Mapping]] = ...) -> None: ...

class CancelRebuildRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CancelRebuildResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckIndexRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckIndexResponse(_message.Message):
    __slots__ = ("rows", "objects", "passages", "documents", "organisations")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    ORGANISATIONS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    objects: int
    passages: int
    documents: int
    organisations: int
    def __init__(self, rows: _Optional[int] = ..., objects: _Optional[int] = ..., passages: _Optional[int] = ..., documents: _Optional[int] = ..., organisations: _Optional[int] = ...) -> None: ...
