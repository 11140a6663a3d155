"""Small documents for tests, made by hand so that nothing binary is kept in the repository."""

from collections.abc import Sequence


def pdf(pages: Sequence[str]) -> bytes:
    """A PDF with one page for each text, lines wrapped at 80 characters, in Helvetica."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>"
        % (len(pages), b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        content = _content(text)
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
        page += b" /Resources << /Font << /F1 3 0 R >> >> >>"
        objects += [page % (5 + 2 * number), b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)]
    file = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size, start = len(objects) + 1, len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    return file + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, start)


def _content(text: str) -> bytes:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 80:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    shown = (line.translate(str.maketrans({"(": r"\(", ")": r"\)", "\\": r"\\"})).encode("latin-1") for line in lines)
    return b"BT /F1 11 Tf 72 760 Td 14 TL\n" + b"\n".join(b"(%s) Tj T*" % line for line in shown) + b"\nET"
