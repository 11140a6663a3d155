"""Between proto messages and domain values: FAQs and their changes."""

from parley.knowledge.v1 import document_pb2, faq_pb2
from parley.knowledge.v1.faq_service_pb2 import UpdateFaqRequest
from services.knowledge.faqs.faq import Change, Faq
from services.knowledge.faqs.matching import FoundFaq

_NAME_CHARACTERS = 255


def faq(found: Faq) -> faq_pb2.Faq:
    """The message of a FAQ."""
    return faq_pb2.Faq(
        id=str(found.id),
        question=found.wording.question,
        alternatives=found.wording.alternatives,
        answer=found.wording.answer,
        user_id=str(found.user_id),
        create_time=found.create_time,
        update_time=found.update_time,
    )


def change(request: UpdateFaqRequest) -> Change:
    """What an update names."""
    said = request.faq
    named = set(request.update_mask.paths)
    if not request.HasField("update_mask"):
        named = {field.name for field, _ in said.ListFields()}
    return Change(
        question=said.question if "question" in named else None,
        alternatives=tuple(said.alternatives) if "alternatives" in named else None,
        answer=said.answer if "answer" in named else None,
    )


def found_faq(found: FoundFaq) -> document_pb2.Passage:
    """The message of a FAQ among what a search found."""
    return document_pb2.Passage(
        id=str(found.id),
        faq_id=str(found.id),
        filename=found.question[:_NAME_CHARACTERS],
        text=f"{found.question}\n{found.answer}",
    )
