from buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from parley.knowledge.v1 import faq_pb2 as _faq_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateFaqRequest(_message.Message):
    __slots__ = ("request_id", "question", "alternatives", "answer")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    question: str
    alternatives: _containers.RepeatedScalarFieldContainer[str]
    answer: str
    def __init__(self, request_id: _Optional[str] = ..., question: _Optional[str] = ..., alternatives: _Optional[_Iterable[str]] = ..., answer: _Optional[str] = ...) -> None: ...

class CreateFaqResponse(_message.Message):
    __slots__ = ("faq",)
    FAQ_FIELD_NUMBER: _ClassVar[int]
    faq: _faq_pb2.Faq
    def __init__(self, faq: _Optional[_Union[_faq_pb2.Faq, _Mapping]] = ...) -> None: ...

class GetFaqRequest(_message.Message):
    __slots__ = ("faq_id",)
    FAQ_ID_FIELD_NUMBER: _ClassVar[int]
    faq_id: str
    def __init__(self, faq_id: _Optional[str] = ...) -> None: ...

class GetFaqResponse(_message.Message):
    __slots__ = ("faq",)
    FAQ_FIELD_NUMBER: _ClassVar[int]
    faq: _faq_pb2.Faq
    def __init__(self, faq: _Optional[_Union[_faq_pb2.Faq, _Mapping]] = ...) -> None: ...

class ListFaqsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFaqsResponse(_message.Message):
    __slots__ = ("faqs", "next_page_token")
    FAQS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    faqs: _containers.RepeatedCompositeFieldContainer[_faq_pb2.Faq]
    next_page_token: str
    def __init__(self, faqs: _Optional[_Iterable[_Union[_faq_pb2.Faq, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateFaqRequest(_message.Message):
    __slots__ = ("faq", "update_mask")
    FAQ_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    faq: _faq_pb2.Faq
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, faq: _Optional[_Union[_faq_pb2.Faq, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateFaqResponse(_message.Message):
    __slots__ = ("faq",)
    FAQ_FIELD_NUMBER: _ClassVar[int]
    faq: _faq_pb2.Faq
    def __init__(self, faq: _Optional[_Union[_faq_pb2.Faq, _Mapping]] = ...) -> None: ...

class DeleteFaqRequest(_message.Message):
    __slots__ = ("faq_id",)
    FAQ_ID_FIELD_NUMBER: _ClassVar[int]
    faq_id: str
    def __init__(self, faq_id: _Optional[str] = ...) -> None: ...

class DeleteFaqResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
