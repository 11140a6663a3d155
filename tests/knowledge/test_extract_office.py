"""Office files, made here: slides, sheets and documents with their structure, and what nobody can see."""

from services.knowledge.extract.content import read
from services.knowledge.passages import cut
from services.shared.errors import Reason
from tests.knowledge.reading import passages, reason, text, zipped

OFFICE = "application/vnd.openxmlformats-officedocument."


def relations(**targets: str) -> str:
    kinds = {"n": "notesSlide", "c": "chart", "m": "comments"}
    listed = (
        f'<Relationship Id="{name}" Type="x/{kinds.get(name[0], name.rstrip("0123456789"))}" Target="{target}"/>'
        for name, target in targets.items()
    )
    return f"<Relationships>{''.join(listed)}</Relationships>"


def shape(text: str, place: str = "") -> str:
    return f'<sp><nvPr><ph type="{place}"/></nvPr><txBody><p><r><t>{text}</t></r></p></txBody></sp>'


def a_pptx() -> bytes:
    table = "<graphicFrame><tbl>{}</tbl></graphicFrame>".format(
        "".join(
            f"<tr><tc><p><r><t>{a}</t></r></p></tc><tc><p><r><t>{b}</t></r></p></tc></tr>"
            for a, b in (("Q1", "7"), ("Q2", "9"))
        )
    )
    chart = '<graphicFrame><chart xmlns:r="r" r:id="c1"/></graphicFrame>'
    numbers = "<c><ser><tx><v>Sales</v></tx><cat><v>May</v></cat><val><v>12</v></val></ser></c>"
    first = f"<sld>{shape('Body text', 'body')}{shape('Opening', 'title')}{table}{chart}{shape('8', 'sldNum')}</sld>"
    return zipped(
        {
            "ppt/presentation.xml": '<p xmlns:r="r"><sldIdLst><sldId id="256" r:id="slide2"/>'
            '<sldId id="257" r:id="slide1"/></sldIdLst></p>',
            "ppt/_rels/presentation.xml.rels": relations(slide1="slides/a.xml", slide2="slides/b.xml"),
            "ppt/slides/a.xml": f"<sld>{shape('Ending', 'ctrTitle')}{shape('Thank you')}</sld>",
            "ppt/slides/b.xml": first,
            "ppt/slides/_rels/b.xml.rels": relations(c1="../charts/c.xml", n1="/ppt/n.xml", m1="../m.xml"),
            "ppt/charts/c.xml": numbers,
            "ppt/n.xml": f"<notes>{shape('Speak slowly', 'body')}</notes>",
            "ppt/m.xml": "<cmLst><cm><text>Too long?</text></cm></cmLst>",
        }
    )


def test_slides_are_pages_in_the_order_of_the_show() -> None:
    found = read(a_pptx())
    first, second = cut(found.blocks)
    assert (found.content_type, found.pages) == (f"{OFFICE}presentationml.presentation", 2)
    assert (first.page, first.headings) == (1, ("Opening",))
    assert first.text == "Body text\nQ1 | 7\nQ2 | 9\nSales\nMay | 12\nSpeak slowly\nToo long?"
    assert (second.page, second.headings, second.text) == (2, ("Ending",), "Thank you")


def a_sheet(rows: list[list[str | float]]) -> str:
    def cell(column: int, row: int, value: str | float) -> str:
        place = f"{chr(65 + column)}{row}"
        if isinstance(value, str):
            return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>' if value else ""
        return f'<c r="{place}"><v>{value}</v></c>'

    lines = (
        f'<row r="{number}">{"".join(cell(column, number, value) for column, value in enumerate(row))}</row>'
        for number, row in enumerate(rows, start=1)
    )
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return f'<worksheet xmlns="{space}"><sheetData>{"".join(lines)}</sheetData></worksheet>'


def a_workbook(sheets: dict[str, str]) -> bytes:
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    outside = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    listed = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="w{n}"/>' for n, name in enumerate(sheets, start=1))
    targets = "".join(
        f'<Relationship Id="w{n}" Type="{outside}/worksheet" Target="worksheets/s{n}.xml"/>'
        for n in range(1, len(sheets) + 1)
    )
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    return zipped(
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
            "_rels/.rels": f'<Relationships xmlns="{package}"><Relationship Id="a" Type="{outside}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook {space} xmlns:r="{outside}"><sheets>{listed}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}">{targets}</Relationships>',
            "xl/worksheets/_rels/s1.xml.rels": relations(m1="../comments1.xml"),
            "xl/comments1.xml": "<comments><comment><text><t>Check this</t></text></comment></comments>",
        }
        | {f"xl/worksheets/s{n}.xml": sheet for n, sheet in enumerate(sheets.values(), start=1)}
    )


def test_a_sheet_is_a_page_and_the_names_of_its_columns_stand_above_the_rows() -> None:
    days = [["Country", "Days"], ["Norway", 25.0], ["Malta", 27.5]]
    found = read(a_workbook({"Holidays": a_sheet(days), "חגים": a_sheet([["פסח", 7.0]])}))
    assert (found.content_type, found.pages) == (f"{OFFICE}spreadsheetml.sheet", 2)
    first, second = cut(found.blocks)
    assert (first.page, first.headings) == (1, ("Holidays", "Country | Days"))
    assert first.text == "Norway | 25\nMalta | 27.5\nCheck this"
    assert (second.page, second.headings, second.text) == (2, ("חגים",), "פסח | 7")


def an_odf(kind: str, body: str) -> dict[str, str | bytes]:
    content = f'<document-content xmlns="urn:oasis:names:tc:opendocument:xmlns:office:1.0"><body><{kind}>{body}'
    return {
        "mimetype": f"application/vnd.oasis.opendocument.{kind}",
        "content.xml": f"{content}</{kind}></body></document-content>",
    }


def test_an_odt_is_read_with_headings_tables_and_notes() -> None:
    body = (
        '<tracked-changes><p>gone</p></tracked-changes><h outline-level="1">Handbook</h><p>Wel<s c="2"/>come'
        "<note><note-body><p>A note.</p></note-body></note></p><list><list-item><p>One</p></list-item></list>"
        "<table><table-row><table-cell><p>a</p></table-cell><table-cell><p>b</p></table-cell></table-row></table>"
    )
    [passage] = passages(zipped(an_odf("text", body)))
    assert passage.headings == ("Handbook",)
    assert passage.text == "Wel come\nA note.\nOne\na | b"


def test_slides_and_sheets_of_opendocument_are_pages() -> None:
    slides = '<page><frame><p>Late</p></frame><frame class="title"><p>One</p></frame></page><page><p>Two</p></page>'
    first, second = passages(zipped(an_odf("presentation", slides)))
    assert (first.page, first.headings, first.text, second.page) == (1, ("One",), "Late", 2)
    sheet = '<table name="Sums"><table-row><table-cell><p>7</p></table-cell></table-row></table>'
    [passage] = passages(zipped(an_odf("spreadsheet", sheet)))
    assert (passage.page, passage.headings, passage.text) == (1, ("Sums",), "7")


def test_an_odt_with_a_password_is_refused_for_it() -> None:
    locked = {"META-INF/manifest.xml": "<manifest><file-entry><encryption-data/></file-entry></manifest>"}
    assert reason(zipped(an_odf("text", "x") | locked)) is Reason.DOCUMENT_ENCRYPTED


def test_rtf_is_read_in_the_code_page_of_its_fonts() -> None:
    content = (
        b"{\\rtf1\\ansi\\ansicpg1252{\\fonttbl{\\f0\\fcharset0 Arial;}{\\f1\\fcharset177 David;}}{\\*\\generator X;}"
        b"{\\pard\\outlinelevel0\\b Price list\\par}{\\pard Caf\\'e9 costs \\u8364?5\\emdash cheap\\line now\\par}"
        b"\\pard\\f1\\'f9\\'ec\\'e5\\'ed\\par{\\v h}\\trowd\\intbl a\\cell b\\cell\\row {\\pict 0011}{\\footer page}}"
    )
    [passage] = passages(content)
    assert passage.headings == ("Price list",)
    assert passage.text == "Café costs €5—cheap\nnow\nשלום\na | b"


def test_hidden_words_of_a_docx_are_not_read() -> None:
    runs = "<r><t>seen</t></r><r><rPr><vanish/></rPr><t>hidden</t></r><r><rPr><vanish val='0'/></rPr><t> too</t></r>"
    assert text(zipped({"word/document.xml": f"<document><body><p>{runs}</p></body></document>"})) == "seen too"


def test_a_docx_is_read_with_merged_cells_and_charts() -> None:
    cell = "<tc><tcPr><vMerge {}/></tcPr><p><r><t>{}</t></r></p></tc><tc><p><r><t>{}</t></r></p></tc>"
    rows = f"<tr>{cell.format('val=' + repr('restart'), 'Norway', 'May')}</tr><tr>{cell.format('', '', 'June')}</tr>"
    chart = '<p><r><drawing><chart xmlns:r="r" r:id="c1"/></drawing></r></p>'
    document = {
        "word/document.xml": f"<document><body><tbl>{rows}</tbl>{chart}</body></document>",
        "word/_rels/document.xml.rels": relations(c1="charts/c.xml"),
        "word/charts/c.xml": "<c><title><p><t>Sales</t></p></title><ser><tx><v>EUR</v></tx><cat><v>May</v></cat>"
        "<val><v>4.4000000000000004</v></val></ser></c>",
    }
    assert text(zipped(document)) == "Norway | May\nNorway | June\nSales\nEUR\nMay | 4.4"
