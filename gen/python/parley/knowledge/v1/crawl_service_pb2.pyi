from buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from parley.knowledge.v1 import crawl_pb2 as _crawl_pb2
from parley.knowledge.v1 import document_pb2 as _document_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateCrawlRequest(_message.Message):
    __slots__ = ("request_id", "url", "limits", "collection", "visibility")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    url: str
    limits: _crawl_pb2.CrawlLimits
    collection: str
    visibility: _document_pb2.Visibility
    def __init__(self, request_id: _Optional[str] = ..., url: _Optional[str] = ..., limits: _Optional[_Union[_crawl_pb2.CrawlLimits, _Mapping]] = ..., collection: _Optional[str] = ..., visibility: _Optional[_Union[_document_pb2.Visibility, str]] = ...) -> None: ...

class CreateCrawlResponse(_message.Message):
    __slots__ = ("crawl",)
    CRAWL_FIELD_NUMBER: _ClassVar[int]
    crawl: _crawl_pb2.Crawl
    def __init__(self, crawl: _Optional[_Union[_crawl_pb2.Crawl, _Mapping]] = ...) -> None: ...

class GetCrawlRequest(_message.Message):
    __slots__ = ("crawl_id",)
    CRAWL_ID_FIELD_NUMBER: _ClassVar[int]
    crawl_id: str
    def __init__(self, crawl_id: _Optional[str] = ...) -> None: ...

class GetCrawlResponse(_message.Message):
    __slots__ = ("crawl",)
    CRAWL_FIELD_NUMBER: _ClassVar[int]
    crawl: _crawl_pb2.Crawl
    def __init__(self, crawl: _Optional[_Union[_crawl_pb2.Crawl, _Mapping]] = ...) -> None: ...

class ListCrawlsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCrawlsResponse(_message.Message):
    __slots__ = ("crawls", "next_page_token")
    CRAWLS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    crawls: _containers.RepeatedCompositeFieldContainer[_crawl_pb2.Crawl]
    next_page_token: str
    def __init__(self, crawls: _Optional[_Iterable[_Union[_crawl_pb2.Crawl, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchCrawlRequest(_message.Message):
    __slots__ = ("crawl_id",)
    CRAWL_ID_FIELD_NUMBER: _ClassVar[int]
    crawl_id: str
    def __init__(self, crawl_id: _Optional[str] = ...) -> None: ...

class WatchCrawlResponse(_message.Message):
    __slots__ = ("crawl",)
    CRAWL_FIELD_NUMBER: _ClassVar[int]
    crawl: _crawl_pb2.Crawl
    def __init__(self, crawl: _Optional[_Union[_crawl_pb2.Crawl, _Mapping]] = ...) -> None: ...

class StartCrawlRequest(_message.Message):
    __slots__ = ("crawl_id", "limits")
    CRAWL_ID_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    crawl_id: str
    limits: _crawl_pb2.CrawlLimits
    def __init__(self, crawl_id: _Optional[str] = ..., limits: _Optional[_Union[_crawl_pb2.CrawlLimits, _Mapping]] = ...) -> None: ...

class StartCrawlResponse(_message.Message):
    __slots__ = ("crawl",)
    CRAWL_FIELD_NUMBER: _ClassVar[int]
    crawl: _crawl_pb2.Crawl
    def __init__(self, crawl: _Optional[_Union[_crawl_pb2.Crawl, _Mapping]] = ...) -> None: ...

class StopCrawlRequest(_message.Message):
    __slots__ = ("crawl_id",)
    CRAWL_ID_FIELD_NUMBER: _ClassVar[int]
    crawl_id: str
    def __init__(self, crawl_id: _Optional[str] = ...) -> None: ...

class StopCrawlResponse(_message.Message):
    __slots__ = ("crawl",)
    CRAWL_FIELD_NUMBER: _ClassVar[int]
    crawl: _crawl_pb2.Crawl
    def __init__(self, crawl: _Optional[_Union[_crawl_pb2.Crawl, _Mapping]] = ...) -> None: ...

class DeleteCrawlRequest(_message.Message):
    __slots__ = ("crawl_id", "with_documents")
    CRAWL_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    crawl_id: str
    with_documents: bool
    def __init__(self, crawl_id: _Optional[str] = ..., with_documents: _Optional[bool] = ...) -> None: ...

class DeleteCrawlResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCrawlPagesRequest(_message.Message):
    __slots__ = ("crawl_id", "page_size", "page_token", "state")
    CRAWL_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    crawl_id: str
    page_size: int
    page_token: str
    state: _crawl_pb2.CrawlPageState
    def __init__(self, crawl_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., state: _Optional[_Union[_crawl_pb2.CrawlPageState, str]] = ...) -> None: ...

class ListCrawlPagesResponse(_message.Message):
    __slots__ = ("pages", "next_page_token")
    PAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pages: _containers.RepeatedCompositeFieldContainer[_crawl_pb2.CrawlPage]
    next_page_token: str
    def __init__(self, pages: _Optional[_Iterable[_Union[_crawl_pb2.CrawlPage, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
