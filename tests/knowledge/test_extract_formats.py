"""Each format read in this process, for speed: small files made here, of what people write and of what goes wrong."""

import io
import json
import shutil
from email.message import EmailMessage
from pathlib import Path

import pytest

from services.knowledge.extract import tesseract
from services.knowledge.extract.archive import Allowance, Nested
from services.knowledge.extract.content import read
from services.knowledge.indexing import Unreadable
from services.shared.errors import Reason
from tests.documents import pdf
from tests.knowledge.reading import passages, reason, text, zipped


def a_book(encrypted: str = "OEBPS/font.otf") -> bytes:
    chapter = "<html><head><title>x</title></head><body><h1>{}</h1><p>{}</p></body></html>"
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<c><rootfile full-path="OEBPS/book.opf"/></c>',
            "META-INF/encryption.xml": f'<e><EncryptedData><CipherReference URI="{encrypted}"/></EncryptedData></e>',
            "OEBPS/book.opf": "<package><metadata><title>Tales</title></metadata><manifest>"
            '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="b" href="b%20b.xhtml" media-type="application/xhtml+xml"/></manifest>'
            '<spine><itemref idref="b"/><itemref idref="a"/></spine></package>',
            "OEBPS/a.xhtml": chapter.format("Last", "It ends. " * 30),
            "OEBPS/b b.xhtml": chapter.format("First", "It begins. " * 30),
        }
    )


def test_a_book_is_read_in_its_order() -> None:
    first, last = passages(a_book())
    assert (first.headings, last.headings) == (("Tales", "First"), ("Tales", "Last"))
    assert reason(a_book(encrypted="OEBPS/a.xhtml")) is Reason.DOCUMENT_ENCRYPTED


def test_a_mail_is_read_with_its_attachments() -> None:
    inner = EmailMessage()
    inner["From"], inner["Subject"], inner["Date"] = "zoe@example.com", "Inner", "Fri, 20 Nov 2026 10:00:00 +0000"
    inner.set_content("Forwarded words.")
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Amy <amy@example.com>", "bob@example.com", "דוח רבעוני"
    mail.set_content("Hello Bob.")
    mail.add_alternative("<p>Hello <b>Bob</b>.</p>", subtype="html")
    mail.add_attachment(pdf(["Attached words."]), maintype="application", subtype="pdf", filename="a.pdf")
    mail.add_attachment(b"\x00\x01\x02" * 99, maintype="image", subtype="x", filename="b.bin")
    mail.add_attachment(inner)
    read_text = text(mail.as_bytes())
    assert passages(mail.as_bytes())[0].headings == ("דוח רבעוני",)
    assert read_text.startswith("From: Amy <amy@example.com>\nTo: bob@example.com\nHello Bob.")
    assert read_text.count("Hello") == 1
    assert "Attached words." in read_text
    assert "Not indexed: The file is of no format that holds text." in read_text
    assert "Forwarded words." in read_text


def test_a_notebook_is_read_cell_by_cell() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Study\n", "We *measure*."]},
        {
            "cell_type": "code",
            "source": "print('```')",
            "outputs": [{"output_type": "stream", "text": ["forty-two\n"]}, {"data": {"text/plain": "seven"}}, 3],
        },
        7,
    ]
    content = json.dumps({"nbformat": 4, "cells": cells}).encode()
    [passage] = passages(content)
    assert read(content).content_type == "application/x-ipynb+json"
    assert (passage.headings, passage.text) == (("Study",), "We measure.\nprint('```')\nforty-two\nseven")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "windows-1255"])
def test_a_csv_keeps_its_columns(delimiter: str, encoding: str) -> None:
    rows = [("שם", "עיר"), *((f"משפחת לוי {number}", f"רחובות{delimiter}דרום") for number in range(40))]
    content = "\r\n".join(f'{name}{delimiter}"{city}"' for name, city in rows).encode(encoding)
    first, *others = passages(content)
    assert read(content).content_type == "text/csv"
    assert others
    assert {passage.headings for passage in (first, *others)} == {("שם | עיר",)}
    assert first.text.startswith(f"משפחת לוי 0 | רחובות{delimiter}דרום".replace("\t", " "))


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        ("שלום לכולם", "windows-1255"),
        ("שָׁלוֹם עֲלֵיכֶם", "windows-1255"),
        ('מחיר: 250 ₪ ליחידה – כולל מע"מ', "windows-1255"),
        ("ב-1986 הקימה חברת החשמל טורבינה", "iso-8859-8"),
        ("دليل الموظفين: الإجازات والرواتب.", "windows-1256"),
        ("Руководство для сотрудников: отпуск", "windows-1251"),
        ("Café für Gäste – El niño comió", "windows-1252"),
        ("Çalışan el kitabı: izin ve maaş", "windows-1254"),
        ("Příručka zaměstnance: žluťoučký kůň", "windows-1250"),
        ("社員ハンドブック：休暇と給与", "shift_jis"),
        ("员工手册：假期和工资的规定如下。", "gb18030"),
    ],
)
def test_a_few_words_are_enough_to_know_their_encoding(words: str, encoding: str) -> None:
    assert text(words.encode(encoding)) == words


def test_a_heap_of_marks_is_plain_text() -> None:
    assert read(b"# x\n" + b"[" * 100_000).content_type == "text/plain"
    assert read(b"[a" * 100_000).content_type == "text/plain"


def test_a_picture_inside_of_markdown_is_no_text() -> None:
    assert (
        text(b"# Title\n\nBefore ![chart](data:image/png;base64," + b"QUJD" * 5000 + b") after") == "Before chart after"
    )


@pytest.mark.parametrize(
    "prose", ["Dear Ann,\nthank you, and see you soon,\nBob, and Eve", "One; two\nthree; four", "a, b\nc, d\ne, f"]
)
def test_prose_is_no_table(prose: str) -> None:
    assert read(prose.encode()).content_type == "text/plain"


def test_a_cell_that_spans_rows_is_said_in_each() -> None:
    rows = "<tr><th rowspan=2>Norway</th><td>May</td></tr><tr><td colspan=2>June</td></tr><tr><td>x</td></tr>"
    assert text(f"<table>{rows}</table><table><tr><td>y</td></tr></table>".encode()) == (
        "Norway | May\nNorway | June\nx\ny"
    )


def test_subtitles_are_read_without_their_times() -> None:
    cues = "WEBVTT\n\nNOTE not said\n\n1\n00:01.000 --> 00:02.000\n<v Ann>Hello <i>you</i>\n\n"
    cues += "00:02.000 --> 00:03.000 align:start\n<v Ann>there.\n\n00:03.000 --> 00:04.000\n<v.loud Bob>Yes!</v>"
    assert text(cues.encode()) == "Ann: Hello you\nthere.\nBob: Yes!"
    assert text(b"1\n00:00:01,000 --> 00:00:02,000\nHello\n") == "Hello"


def test_any_xml_gives_its_words() -> None:
    feed = (
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><rss><a>One</a><b>&e;</b></rss>'
    )
    assert text(feed) == "One"


def test_a_zip_is_read_file_by_file_and_says_what_it_left_out() -> None:
    inner = zipped({"deep/c.csv": "a,b\n1,2\n3,4\n"})
    members = {"a/report.pdf": pdf(["In the report."]), "b.bin": b"\x00" * 99, "c.zip": inner, "__MACOSX/x": b"\x00"}
    read_text = text(zipped(members))
    assert "In the report." in read_text
    assert "3 | 4" in read_text
    assert read_text.count("Not indexed") == 1
    assert reason(zipped({"b.bin": b"\x00" * 99})) is Reason.UNSUPPORTED_FORMAT
    assert (
        reason(zipped({"[Content_Types].xml": "<Types/>", "visio/document.xml": "<v/>"})) is Reason.UNSUPPORTED_FORMAT
    )


def test_a_zip_with_a_password_is_refused_for_it() -> None:
    content = bytearray(zipped({"a.txt": "secret"}))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    assert reason(bytes(content)) is Reason.DOCUMENT_ENCRYPTED


def test_archives_are_unpacked_within_limits() -> None:
    content = b"words"
    for _ in range(5):
        content = zipped({"inner.zip": content})
    assert reason(content) is Reason.EXTRACTION_LIMIT
    assert reason(zipped({"a.txt": b" " * 70_000_000})) is Reason.EXTRACTION_LIMIT
    many = zipped({f"{number}.txt": b"word " * 200 for number in range(20)})
    assert reason(many, Nested(allowance=Allowance(bytes_left=10_000))) is Reason.EXTRACTION_LIMIT
    assert reason(many, Nested(allowance=Allowance(files_left=10))) is Reason.EXTRACTION_LIMIT


@pytest.mark.parametrize(
    "content",
    [
        zipped({"ppt/presentation.xml": "<p/>"}),
        zipped({"xl/workbook.xml": "<not xml"}),
        zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<x/>"}),
        zipped({"META-INF/container.xml": "<c/>"}),
        a_book()[:-100],
        bytes.fromhex("d0cf11e0a1b11ae1") + bytes(3000),
    ],
    ids=["pptx", "xlsx", "odt", "epub", "cut off", "old office"],
)
def test_what_is_broken_is_refused_for_it(content: bytes) -> None:
    assert reason(content) is Reason.DOCUMENT_CORRUPT


def filled_form() -> bytes:
    """A PDF with a text field that somebody filled in, and a note."""
    field = b"/Annots [ << /Type /Annot /Subtype /Widget /FT /Tx /T (Name) /V (Alice) /Rect [9 9 99 99] >> "
    note = b"<< /Type /Annot /Subtype /Text /Contents (Ask her) /Rect [9 9 99 99] >> ] /Contents"
    content = pdf(["Registration form."]).replace(b"/Contents", field + note)
    form = b"/AcroForm << /Fields [ << /FT /Tx /T (Name) /V (Alice) >> ] >> /Pages"
    return content.replace(b"/Pages", form, 1)


def test_what_is_filled_into_a_pdf_is_read() -> None:
    assert text(filled_form()) == "Registration form.\nName: Alice\nAsk her"


def a_scan() -> bytes:
    """A PDF with a page that is a picture of words: those of another PDF."""
    import pypdfium2

    page = pypdfium2.PdfDocument(pdf(["The quick brown fox jumps over the lazy dog."]))[0]
    picture = page.render(scale=2, grayscale=True)
    scan = pypdfium2.PdfDocument.new()
    image = pypdfium2.PdfImage.new(scan)
    image.set_bitmap(picture)
    image.set_matrix(pypdfium2.PdfMatrix().scale(595, 842))
    sheet = scan.new_page(595, 842)
    sheet.insert_obj(image)
    sheet.gen_content()
    file = io.BytesIO()
    scan.save(file)
    return file.getvalue()


def test_what_is_packed_by_an_unusual_method_is_not_called_damaged() -> None:
    content = bytearray(zipped({"note.txt": "Some text."}))
    deflate64 = (9).to_bytes(2, "little")
    for header, method_at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.index(header) + method_at
        content[at : at + 2] = deflate64
    assert reason(bytes(content)) is Reason.UNSUPPORTED_FORMAT


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed: apt install tesseract-ocr")
def test_a_scan_is_read_by_text_recognition() -> None:
    [passage] = passages(a_scan())
    assert passage.page == 1
    assert "quick brown fox" in passage.text


def test_a_scan_without_text_recognition_is_refused_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tesseract.find_program.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        for content in (a_scan(), b"\x89PNG\r\n\x1a\n" + bytes(99)):
            with pytest.raises(Unreadable, match="text recognition \\(OCR\\) is not installed") as refused:
                list(read(content).blocks)
            assert refused.value.failure.reason is Reason.DOCUMENT_WITHOUT_TEXT
    finally:
        tesseract.find_program.cache_clear()
