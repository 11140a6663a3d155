import datetime

from buf.validate import validate_pb2 as _validate_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from parley.errors.v1 import error_reason_pb2 as _error_reason_pb2
from parley.knowledge.v1 import document_pb2 as _document_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CrawlState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CRAWL_STATE_UNSPECIFIED: _ClassVar[CrawlState]
    CRAWL_STATE_QUEUED: _ClassVar[CrawlState]
    CRAWL_STATE_RUNNING: _ClassVar[CrawlState]
    CRAWL_STATE_INDEXING: _ClassVar[CrawlState]
    CRAWL_STATE_DONE: _ClassVar[CrawlState]
    CRAWL_STATE_STOPPED: _ClassVar[CrawlState]
    CRAWL_STATE_FAILED: _ClassVar[CrawlState]

class CrawlPageState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CRAWL_PAGE_STATE_UNSPECIFIED: _ClassVar[CrawlPageState]
    CRAWL_PAGE_STATE_WAITING: _ClassVar[CrawlPageState]
    CRAWL_PAGE_STATE_INDEXING: _ClassVar[CrawlPageState]
    CRAWL_PAGE_STATE_INDEXED: _ClassVar[CrawlPageState]
    CRAWL_PAGE_STATE_UNCHANGED: _ClassVar[CrawlPageState]
    CRAWL_PAGE_STATE_SKIPPED: _ClassVar[CrawlPageState]
    CRAWL_PAGE_STATE_FAILED: _ClassVar[CrawlPageState]

class CrawlLimit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CRAWL_LIMIT_UNSPECIFIED: _ClassVar[CrawlLimit]
    CRAWL_LIMIT_PAGES: _ClassVar[CrawlLimit]
    CRAWL_LIMIT_BYTES: _ClassVar[CrawlLimit]
    CRAWL_LIMIT_SECONDS: _ClassVar[CrawlLimit]
CRAWL_STATE_UNSPECIFIED: CrawlState
CRAWL_STATE_QUEUED: CrawlState
CRAWL_STATE_RUNNING: CrawlState
CRAWL_STATE_INDEXING: CrawlState
CRAWL_STATE_DONE: CrawlState
CRAWL_STATE_STOPPED: CrawlState
CRAWL_STATE_FAILED: CrawlState
CRAWL_PAGE_STATE_UNSPECIFIED: CrawlPageState
CRAWL_PAGE_STATE_WAITING: CrawlPageState
CRAWL_PAGE_STATE_INDEXING: CrawlPageState
CRAWL_PAGE_STATE_INDEXED: CrawlPageState
CRAWL_PAGE_STATE_UNCHANGED: CrawlPageState
CRAWL_PAGE_STATE_SKIPPED: CrawlPageState
CRAWL_PAGE_STATE_FAILED: CrawlPageState
CRAWL_LIMIT_UNSPECIFIED: CrawlLimit
CRAWL_LIMIT_PAGES: CrawlLimit
CRAWL_LIMIT_BYTES: CrawlLimit
CRAWL_LIMIT_SECONDS: CrawlLimit

class CrawlLimits(_message.Message):
    __slots__ = ("max_depth", "max_pages", "max_bytes", "max_seconds")
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    max_depth: int
    max_pages: int
    max_bytes: int
    max_seconds: int
    def __init__(self, max_depth: _Optional[int] = ..., max_pages: _Optional[int] = ..., max_bytes: _Optional[int] = ..., max_seconds: _Optional[int] = ...) -> None: ...

class Crawl(_message.Message):
    __slots__ = ("id", "url", "limits", "collection", "visibility", "state", "counts", "bytes", "limit_reached", "failure", "user_id", "create_time", "start_time", "end_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_REACHED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    url: str
    limits: CrawlLimits
    collection: str
    visibility: _document_pb2.Visibility
    state: CrawlState
    counts: CrawlCounts
    bytes: int
    limit_reached: CrawlLimit
    failure: _document_pb2.DocumentFailure
    user_id: str
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., url: _Optional[str] = ..., limits: _Optional[_Union[CrawlLimits, _Mapping]] = ..., collection: _Optional[str] = ..., visibility: _Optional[_Union[_document_pb2.Visibility, str]] = ..., state: _Optional[_Union[CrawlState, str]] = ..., counts: _Optional[_Union[CrawlCounts, _Mapping]] = ..., bytes: _Optional[int] = ..., limit_reached: _Optional[_Union[CrawlLimit, str]] = ..., failure: _Optional[_Union[_document_pb2.DocumentFailure, _Mapping]] = ..., user_id: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CrawlCounts(_message.Message):
    __slots__ = ("waiting", "indexing", "indexed", "unchanged", "skipped", "failed")
    WAITING_FIELD_NUMBER: _ClassVar[int]
    INDEXING_FIELD_NUMBER: _ClassVar[int]
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    waiting: int
    indexing: int
    indexed: int
    unchanged: int
    skipped: int
    failed: int
    def __init__(self, waiting: _Optional[int] = ..., indexing: _Optional[int] = ..., indexed: _Optional[int] = ..., unchanged: _Optional[int] = ..., skipped: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class CrawlPage(_message.Message):
    __slots__ = ("url", "depth", "state", "reason", "message", "document_id", "visit_time")
    URL_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    VISIT_TIME_FIELD_NUMBER: _ClassVar[int]
    url: str
    depth: int
    state: CrawlPageState
    reason: _error_reason_pb2.ErrorReason
    message: str
    document_id: str
    visit_time: _timestamp_pb2.Timestamp
    def __init__(self, url: _Optional[str] = ..., depth: _Optional[int] = ..., state: _Optional[_Union[CrawlPageState, str]] = ..., reason: _Optional[_Union[_error_reason_pb2.ErrorReason, str]] = ..., message: _Optional[str] = ..., document_id: _Optional[str] = ..., visit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
