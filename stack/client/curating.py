"""`parley faq`: an organisation's own questions and answers."""

import asyncio
import csv
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from grpclib.exceptions import GRPCError
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from parley_sdk.parley.knowledge.v1 import (
    CreateFaqRequest,
    DeleteFaqRequest,
    Faq,
    FaqServiceStub,
    ListFaqsRequest,
)
from stack.client.account import signed_in
from stack.client.asking import printable
from stack.client.edge import CALL_TIMEOUT_S, Edge, console, end, reason_of

_PAGE_SIZE = 100
_TRIES, _PAUSE_S = 10, 1.0
_ANSWER_CHARACTERS = 80
_LARGEST_CELL = 1_000_000


async def add(edge: Edge, question: str, also: Sequence[str], answer: str) -> int:
    """Add one FAQ and print its id."""
    async with signed_in(edge) as (channel, metadata):
        faq = await _create(FaqServiceStub(channel, metadata=metadata), question, answer, also)
    console.print(f"{faq.id}: added", highlight=False)
    return 0


async def show(edge: Edge) -> int:
    """Print every question, page by page."""
    table = Table(box=None, pad_edge=False)
    for heading in ("Question", "Answer", "Id"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "Id")
    async with signed_in(edge) as (channel, metadata):
        faqs, token = FaqServiceStub(channel, metadata=metadata), ""
        while True:
            page = await faqs.list_faqs(ListFaqsRequest(page_size=_PAGE_SIZE, page_token=token), timeout=CALL_TIMEOUT_S)
            for faq in page.faqs:
                questions = "\n".join((faq.question, *faq.alternatives))
                table.add_row(*(Text(printable(cell)) for cell in (questions, _begun(faq.answer), faq.id)))
            if not (token := page.next_page_token):
                break
    if table.row_count:
        console.print(table)
    else:
        console.print("There is no question yet: `parley faq add` makes one.", highlight=False)
    return 0


async def delete(edge: Edge, ids: Sequence[str]) -> int:
    """Delete FAQs; the first refusal ends it."""
    async with signed_in(edge) as (channel, metadata):
        faqs = FaqServiceStub(channel, metadata=metadata)
        for faq_id in ids:
            await faqs.delete_faq(DeleteFaqRequest(faq_id=faq_id), timeout=CALL_TIMEOUT_S)
            console.print(f"{faq_id}: deleted", highlight=False)
    return 0


async def import_csv(edge: Edge, file: Path) -> int:
    """Add every row of a file; 1 when one was refused."""
    rows = list(_rows(file))
    failures: list[str] = []
    added = known = 0
    async with signed_in(edge) as (channel, metadata):
        faqs = FaqServiceStub(channel, metadata=metadata)
        with Progress(console=console) as progress:
            for line, question, answer in progress.track(rows, description=file.name):
                try:
                    await _create(faqs, question, answer)
                    added += 1
                except GRPCError as error:
                    if reason_of(error) == "FAQ_DUPLICATE":
                        known += 1
                        continue
                    failures.append(f"line {line}: {error.message} ({reason_of(error) or error.status.name})")
                    if reason_of(error) in ("FAQ_NOT_YOURS", "FAQS_FULL"):
                        break
    for failure in failures:
        console.print(failure, style="red", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{added} added, {known} there already, {len(rows) - added - known} not added.", highlight=False)
    return 1 if failures else 0


async def _create(faqs: FaqServiceStub, question: str, answer: str, also: Sequence[str] = ()) -> Faq:
    request = CreateFaqRequest(request_id=str(uuid.uuid4()), question=question, alternatives=list(also), answer=answer)
    tries = _TRIES
    while True:
        tries -= 1
        try:
            response = await faqs.create_faq(request, timeout=CALL_TIMEOUT_S)
        except GRPCError as error:  # a long file is faster than the edge lets one user be
            if reason_of(error) != "RATE_LIMITED" or not tries:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            assert response.faq
            return response.faq


def _begun(answer: str) -> str:
    """Enough of an answer to recognise it."""
    line = " ".join(answer.split())
    return line if len(line) <= _ANSWER_CHARACTERS else f"{line[: _ANSWER_CHARACTERS - 1]}…"


def _rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """Line, question and answer of each row. Ends the command for a file that is none."""
    csv.field_size_limit(_LARGEST_CELL)
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            if not {"question", "answer"} <= set(reader.fieldnames or ()):
                end(f"{file} has no columns named question and answer.")
            for row in reader:
                yield reader.line_num, row["question"] or "", row["answer"] or ""
    except (UnicodeDecodeError, csv.Error) as error:
        end(f"{file} is no CSV in UTF-8: {error}.")
