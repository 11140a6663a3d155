"""PPTX: slides in the order of the show, each a page below its title: shapes, tables, charts, notes, comments."""

from collections.abc import Iterable, Iterator

from lxml import etree

from services.knowledge.extract import charts, tables
from services.knowledge.extract.archive import Archive
from services.knowledge.extract.refusals import corrupt
from services.knowledge.extract.relations import Relation, relations
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.extract.xml import children, descendants, find_child, name, value
from services.knowledge.passages import Block

CONTENT_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
MAIN = "ppt/presentation.xml"
_TITLES = frozenset(("title", "ctrTitle"))
_REPEATED = frozenset(("dt", "ftr", "sldNum", "hdr", "sldImg"))  # date, footer, number: the same on every slide


def read(archive: Archive) -> Read:
    """The slides of a presentation. Raises Unreadable."""
    slides = _slides(archive)
    if not slides:
        raise corrupt()
    return Read(CONTENT_TYPE, _blocks(archive, slides), len(slides))


def _slides(archive: Archive) -> list[str]:
    show = archive.xml(MAIN)
    targets = {relation.id: relation.target for relation in relations(archive, MAIN) if relation.kind == "slide"}
    listed = find_child(show, "sldIdLst")
    # Both attributes are named `id`: the number, without a namespace, and the relation's.
    ids = (entry for slide in children(listed, "sldId") for key, entry in slide.items() if key.startswith("{"))
    return [targets[entry] for entry in ids if entry in targets]


def _blocks(archive: Archive, slides: Iterable[str]) -> Iterator[Block]:
    for page, slide in enumerate(slides, start=1):
        yield from _Slide(archive, slide, page).blocks()


class _Slide:
    """One slide and the parts that belong to it."""

    def __init__(self, archive: Archive, part: str, page: int) -> None:
        self._archive = archive
        self._part = part
        self._page = page
        self._relations: dict[str, Relation] = {relation.id: relation for relation in relations(archive, part)}
        self._sections = Sections()

    def blocks(self) -> Iterator[Block]:
        shapes = list(_shapes(self._archive.xml(self._part)))
        for shape in shapes:
            if _placeholder(shape) in _TITLES:
                yield from self._sections.heading(1, " ".join(_paragraphs(shape)), self._page)
        for shape in shapes:
            if _placeholder(shape) not in _TITLES:
                yield from self._texts(self._shape(shape))
        for relation in self._relations.values():
            if relation.kind == "notesSlide":
                for shape in _shapes(self._archive.xml(relation.target)):
                    yield from self._texts(_paragraphs(shape) if _placeholder(shape) == "body" else ())
            elif relation.kind == "comments":
                for comment in descendants(self._archive.xml(relation.target), "cm"):
                    yield from self._texts(_comment(comment))
        yield from self._sections.end()

    def _texts(self, texts: Iterable[str]) -> Iterator[Block]:
        for text in texts:
            yield from self._sections.text(text, self._page)

    def _shape(self, shape: etree._Element) -> Iterator[str]:
        if name(shape) != "graphicFrame":
            yield from _paragraphs(shape)
            return
        for table in descendants(shape, "tbl"):
            above: list[str] = []
            for row in descendants(table, "tr"):
                cells = list(children(row, "tc"))
                reaching = [column for column, cell in enumerate(cells) if value(cell, "vMerge") in ("1", "true")]
                above = tables.filled([" ".join(_paragraphs(cell)) for cell in cells], above, reaching)
                yield tables.line(above)
        for tag, attribute in (("chart", "id"), ("relIds", "dm")):
            for frame in descendants(shape, tag):
                if (relation := self._relations.get(value(frame, attribute))) is not None:
                    part = self._archive.xml(relation.target)
                    yield from charts.rows(part) if tag == "chart" else _paragraphs(part)


def _shapes(slide: etree._Element) -> Iterator[etree._Element]:
    """Those that may hold text, in the order of the file, those of groups too."""
    for element in slide:
        if name(element) in ("sp", "graphicFrame", "cxnSp"):
            if _placeholder(element) not in _REPEATED:
                yield element
        elif name(element) != "Fallback":
            yield from _shapes(element)


def _placeholder(shape: etree._Element) -> str:
    """What the shape is for on its slide: "title", "body"; empty for a shape of its own."""
    for place in descendants(shape, "ph"):
        return value(place, "type") or "body"
    return ""


def _paragraphs(shape: etree._Element) -> Iterator[str]:
    for paragraph in descendants(shape, "p"):
        text = "".join(_run(part) for part in paragraph)
        if text.strip():
            yield text


def _run(part: etree._Element) -> str:
    if name(part) == "br":
        return "\n"
    return "".join(text.text or "" for text in descendants(part, "t"))


def _comment(comment: etree._Element) -> Iterator[str]:
    yield from _paragraphs(comment)
    for text in children(comment, "text"):
        yield text.text or ""
