"""XML of unknown origin, by lxml: no entities, no network, bounded depth.

Names are compared without their namespace, so that strict and transitional files, and those of any version, read alike.
"""

from collections.abc import Iterator

from lxml import etree

from services.knowledge.extract import refusals
from services.knowledge.extract.sections import Read, Sections
from services.knowledge.passages import Block


def parse(content: bytes) -> etree._Element:
    """The root element. Raises Unreadable."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(content, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise refusals.corrupt() from error


def name(element: etree._Element) -> str:
    """The tag without its namespace; empty for what is no element."""
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def children(element: etree._Element | None, wanted: str) -> Iterator[etree._Element]:
    return (child for child in element if name(child) == wanted) if element is not None else iter(())


def find_child(element: etree._Element | None, wanted: str) -> etree._Element | None:
    return next(children(element, wanted), None)


def descendants(element: etree._Element, wanted: str) -> Iterator[etree._Element]:
    """The nearest elements of this name, not those inside of them."""
    for child in element:
        if name(child) == wanted:
            yield child
        elif name(child) != "Fallback":  # says again what stands beside it
            yield from descendants(child, wanted)


def value(element: etree._Element | None, attribute: str) -> str:
    if element is None:
        return ""
    return next((value for name, value in element.items() if etree.QName(name).localname == attribute), "")


def read(root: etree._Element) -> Read:
    """The text of any XML: a block for each element that has some of its own."""
    return Read("application/xml", _blocks(root))


def _blocks(root: etree._Element) -> Iterator[Block]:
    sections = Sections()
    for element in root.iter(etree.Element):
        own = [element.text or "", *(child.tail or "" for child in element)]
        yield from sections.text(" ".join(" ".join(own).split()))
