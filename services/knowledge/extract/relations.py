"""How the parts of an Office file belong together: each part has a list of the parts that it speaks of."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from services.knowledge.extract.archive import Archive
from services.knowledge.extract.xml import children, value


@dataclass(frozen=True)
class Relation:
    id: str
    kind: str
    """The last part of its type, such as "slide"."""
    target: str
    """The other part's name in the archive."""


def relations(archive: Archive, part: str) -> list[Relation]:
    """Those to parts that exist; nothing outside of the archive."""
    folder, file = posixpath.split(part)
    listed = archive.find_xml(f"{folder}/_rels/{file}.rels")
    return [] if listed is None else list(_existing(archive, folder, listed))


def _existing(archive: Archive, folder: str, listed: etree._Element) -> Iterator[Relation]:
    for relation in children(listed, "Relationship"):
        target = posixpath.normpath(posixpath.join("/", folder, value(relation, "Target"))).lstrip("/")
        if value(relation, "TargetMode") != "External" and target in archive.names:
            yield Relation(value(relation, "Id"), value(relation, "Type").rpartition("/")[2], target)
