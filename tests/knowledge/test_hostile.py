"""Files that want something fetched, or written elsewhere, in the process that reads uploads."""

import asyncio
import io
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import docx
import pytest

from services.knowledge.extraction import ExtractionProcess
from services.knowledge.indexing import Unreadable
from tests.knowledge.conftest import in_parts

MEMORY_BYTES = 1024 * 1024 * 1024
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
Make = Callable[[str], bytes]


def packed(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def a_page(url: str) -> bytes:
    return f"""<html><head><base href="{url}"><link rel=stylesheet href="{url}/a.css"><script src="{url}/a.js"></script>
        <meta http-equiv=refresh content="0;url={url}/b"></head><body><p>The pike waits.</p><img src="{url}/a.png">
        <iframe src="{url}/c"></iframe><object data="{url}/d"></object><style>@import "{url}/e.css"</style>
        <svg><image href="{url}/f"/></svg></body></html>""".encode()


def with_entities(url: str) -> bytes:
    return f"""<?xml version="1.0"?><!DOCTYPE a SYSTEM "{url}/a.dtd" [<!ENTITY b SYSTEM "{url}/b">
        <!ENTITY % c SYSTEM "{url}/c"> %c;]><a xmlns:xi="http://www.w3.org/2001/XInclude">The pike waits. &b;
        <xi:include href="{url}/d"/></a>""".encode()


def a_letter(url: str) -> bytes:
    document = docx.Document()
    document.add_paragraph("The pike waits.")
    document.part.relate_to(f"{url}/picture.png", f"{RELATIONS}/image", is_external=True)
    document.part.relate_to(f"{url}/template.dotm", f"{RELATIONS}/attachedTemplate", is_external=True)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def a_message(url: str) -> bytes:
    return f"""From: a@example.com\nSubject: Pike\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n
--x\nContent-Type: text/html\n\n<p>The pike waits.</p><img src="{url}/a.png">\n--x
Content-Type: message/external-body; access-type=URL; URL="{url}/b"\n\nContent-Type: text/plain\n\n--x--\n""".encode()


def a_form(url: str) -> bytes:
    return b"""%%PDF-1.4\n1 0 obj <</Type/Catalog/Pages 2 0 R/OpenAction <</S/URI/URI(%(url)s/a)>>
/AcroForm <</XFA(%(url)s/b)>> /Names <</EmbeddedFiles <</Names [(a) <</Type/Filespec/FS/URL/F(%(url)s/c)>>]>>>> >>
endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Resources<</Font<</F<</Type/Font/Subtype/Type1
/BaseFont/Helvetica>>>>>>/Contents 4 0 R/AA <</O <</S/GoToR/F(%(url)s/d)>>>> >> endobj
4 0 obj <</Length 44>> stream\nBT /F 12 Tf 20 200 Td (The pike waits.) Tj ET\nendstream endobj
trailer <</Root 1 0 R>>""" % {b"url": url.encode()}


def a_book(url: str) -> bytes:
    container = b"""<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
        <rootfile full-path="a.opf"/></rootfiles></container>"""
    package = f"""<package xmlns="http://www.idpf.org/2007/opf"><manifest>
        <item id="a" href="{url}/a.html" media-type="application/xhtml+xml"/>
        <item id="b" href="b.html" media-type="application/xhtml+xml"/></manifest>
        <spine><itemref idref="a"/><itemref idref="b"/></spine></package>""".encode()
    page = a_page(url)
    parts = (("META-INF/container.xml", container), ("a.opf", package), ("b.html", page))
    return packed(("mimetype", b"application/epub+zip"), *parts)


def a_notebook(url: str) -> bytes:
    return f'{{"cells": [{{"cell_type": "markdown", "source": ["The pike waits. ![a]({url}/a.png)"]}}]}}'.encode()


class Bait:
    """Listens, and counts who comes."""

    def __init__(self) -> None:
        self.visits = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async def visited(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.visits += 1
            writer.close()

        server = await asyncio.start_server(visited, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def text_of(content: bytes) -> str:
    """What the file says; why nothing, where it can't be read."""
    try:
        async with ExtractionProcess(MEMORY_BYTES, 20, 60.0).read(in_parts(content, 65_536)) as extracted:
            return "\n".join(passage.text for passage in extracted.passages)
    except Unreadable as error:
        return f"{error.failure.reason}"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_page, "The pike waits."),
        (with_entities, "The pike waits."),
        (a_letter, "The pike waits."),
        (a_message, "The pike waits."),
        (a_form, "The pike waits."),
        (a_book, "The pike waits."),
        (a_notebook, "The pike waits."),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_nothing_is_fetched(make: Make, said: str) -> None:
    bait = Bait()
    async with bait.listening() as url:
        assert said in await text_of(make(url))
    assert bait.visits == 0


async def test_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    """Names of a packed file that lead out of the folder where the process stands, in several spellings."""
    name = f"planted-{uuid4()}.txt"
    places = (tmp_path / name, Path(tempfile.gettempdir()) / name)
    up = "../" * 12
    names = (f"../{name}", f"..\\{name}", f"a/../../{name}", *(f"{up}{str(place)[1:]}" for place in places))
    said = await text_of(packed(*((place, b"The pike waits.") for place in (*names, *map(str, places)))))
    assert "The pike waits." in said
    assert not any(place.exists() for place in places)
