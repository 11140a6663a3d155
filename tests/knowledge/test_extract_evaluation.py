"""A sample of the public evaluation files, in the process that reads uploads; bench/extraction.py reads them all."""

import resource

import pytest

from bench.extraction import EVALUATION, expected_text, outcome, similarity, text_of

pytestmark = pytest.mark.skipif(not EVALUATION.is_dir(), reason=f"no evaluation files in {EVALUATION}")

ALIKE = {
    "docling/csv/csv-tab.csv": 0.97,
    "docling/doc/legacy_sample.doc": 0.97,
    "docling/docx/docx_rich_cells.docx": 0.97,
    "docling/html/kvp_data_example.html": 0.95,
    "docling/md/wiki.md": 0.97,
    "docling/odf/text_document_01.odt.pdf": 0.97,
    "docling/pdf/right_to_left_01.pdf": 0.97,
    "docling/pptx/powerpoint_bad_text.pptx": 0.95,
    "docling/xlsx/xlsx_05_table_with_title.xlsx": 0.95,
}
READ = {
    "markitdown/test_mskanji.csv": "text/csv",
    "markitdown/test_outlook_msg.msg": "application/vnd.ms-outlook",
    "tika/testEPUB.epub": "application/epub+zip",
    "unstructured/eml__fake-email-attachment.eml": "message/rfc822",
    "unstructured/example-steelJIS-datasheet-utf-16.html": "text/html",
    "unstructured/fake-doc.rtf": "application/rtf",
    "unstructured/tests-example.xls": "application/vnd.ms-excel",
}
REFUSED = {
    "generated/bomb_nested_12.5GB.zip": "EXTRACTION_LIMIT",
    "generated/bomb_200MB.zip": "EXTRACTION_LIMIT",
    "generated/docx_billion_laughs.docx": "DOCUMENT_CORRUPT",
    "generated/pdf_flate_bomb_100MB.pdf": "DOCUMENT_WITHOUT_TEXT",
    "poi-fuzz/clusterfuzz-testcase-minimized-POIHSSFFuzzer-5816431116615680.xls": "DOCUMENT_CORRUPT",
    "poi-protected/PasswordProtected.doc": "DOCUMENT_ENCRYPTED",
    "poi-protected/password.xls": "DOCUMENT_ENCRYPTED",
    "poi-protected/protected_passtika.xlsx": "DOCUMENT_ENCRYPTED",
    "unstructured/password.pdf": "DOCUMENT_ENCRYPTED",
}
MOST_GROWTH_KB = 50 * 1024


@pytest.mark.parametrize("name", ALIKE)
async def test_a_file_says_what_is_expected(name: str) -> None:
    path = EVALUATION / "docs" / name
    expected = expected_text(path)
    assert expected is not None
    assert similarity(text_of((await outcome(path)).passages), expected) >= ALIKE[name]


@pytest.mark.parametrize("name", READ)
async def test_a_file_is_what_its_content_says(name: str) -> None:
    found = await outcome(EVALUATION / "docs" / name)
    assert found.content_type == READ[name]
    assert found.passages


@pytest.mark.parametrize("name", REFUSED)
async def test_a_hostile_file_is_refused_for_its_reason(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = await outcome(EVALUATION / "hostile" / name)
    assert found.failure.startswith(REFUSED[name])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KB


async def test_nothing_outside_is_read_through_xml() -> None:
    found = await outcome(EVALUATION / "hostile" / "tika" / "testXXE.xml")
    assert "root:" not in text_of(found.passages)
