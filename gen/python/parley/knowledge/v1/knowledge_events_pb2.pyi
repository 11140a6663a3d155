from parley.errors.v1 import error_reason_pb2 as _error_reason_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DocumentUploaded(_message.Message):
    __slots__ = ("tenant_id", "user_id", "document_id", "filename")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    document_id: str
    filename: str
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., document_id: _Optional[str] = ..., filename: _Optional[str] = ...) -> None: ...

class DocumentIndexed(_message.Message):
    __slots__ = ("tenant_id", "user_id", "document_id", "filename", "passages", "source_url")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_URL_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    document_id: str
    filename: str
    passages: int
    source_url: str
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., document_id: _Optional[str] = ..., filename: _Optional[str] = ..., passages: _Optional[int] = ..., source_url: _Optional[str] = ...) -> None: ...

class DocumentFailed(_message.Message):
    __slots__ = ("tenant_id", "user_id", "document_id", "filename", "reason", "message", "source_url")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_URL_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    document_id: str
    filename: str
    reason: _error_reason_pb2.ErrorReason
    message: str
    source_url: str
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., document_id: _Optional[str] = ..., filename: _Optional[str] = ..., reason: _Optional[_Union[_error_reason_pb2.ErrorReason, str]] = ..., message: _Optional[str] = ..., source_url: _Optional[str] = ...) -> None: ...

class DocumentDeleted(_message.Message):
    __slots__ = ("tenant_id", "user_id", "document_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    document_id: str
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., document_id: _Optional[str] = ...) -> None: ...

class DocumentUpdated(_message.Message):
    __slots__ = ("tenant_id", "user_id", "document_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    document_id: str
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., document_id: _Optional[str] = ...) -> None: ...

class FaqChanged(_message.Message):
    __slots__ = ("tenant_id", "user_id", "faq_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    FAQ_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    faq_id: str
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., faq_id: _Optional[str] = ...) -> None: ...

class FaqDeleted(_message.Message):
    __slots__ = ("tenant_id", "user_id", "faq_id")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    FAQ_ID_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    faq_id: str
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., faq_id: _Optional[str] = ...) -> None: ...

class CrawlRequested(_message.Message):
    __slots__ = ("tenant_id", "user_id", "crawl_id", "slice")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    CRAWL_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    user_id: str
    crawl_id: str
    slice: int
    def __init__(self, tenant_id: _Optional[str] = ..., user_id: _Optional[str] = ..., crawl_id: _Optional[str] = ..., slice: _Optional[int] = ...) -> None: ...
