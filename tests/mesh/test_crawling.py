"""Reading a site by the command line, and asking what it says."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:
        """Nothing."""


@pytest.fixture
def site(site_port: int, tmp_path: Path) -> Iterator[Path]:
    """The folder of a site that is served while the test runs."""
    server = ThreadingHTTPServer(("127.0.0.1", site_port), partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


def page(folder: Path, name: str, text: str, *links: str) -> None:
    anchors = "".join(f'<a href="{link}">more</a>' for link in links)
    html = f"<!doctype html><html><title>{name}</title><body><p>{text}</p>{anchors}</body></html>"
    (folder / name).write_text(html)


def test_a_site_is_read_and_read_again(mesh: Any, site: Path, site_port: int) -> None:
    url = f"http://127.0.0.1:{site_port}/"
    page(site, "index.html", "Welcome to the town of Quendale.", "mayor.html", "gone.html")
    page(site, "mayor.html", "The mayor of Quendale is called Ottilie Brack.", "http://169.254.169.254/latest")
    read = mesh.parley("ingest", url, "--collection", "Town", "--depth", "1")
    assert "2 pages ready, 1 failed" in read.stdout, read.stdout + read.stderr
    assert f"{url}gone.html: The page is not there (404). (PAGE_NOT_REACHABLE)" in read.stdout + read.stderr
    assert read.returncode == 1
    listed = mesh.parley("documents", "--collection", "Town").stdout
    assert "mayor.html" in listed
    assert listed.count("indexed") == 2
    page(site, "index.html", "Welcome to the old town of Quendale.", "mayor.html")
    again = mesh.parley("ingest", url, "--collection", "Town")
    assert (again.returncode, "2 pages ready" in again.stdout) == (0, True), again.stdout + again.stderr
    assert mesh.parley("documents", "--collection", "Town").stdout.count("indexed") == 2  # nothing is there twice


def test_an_inside_address_is_refused(mesh: Any) -> None:
    postgres = json.loads((mesh.data_dir / "endpoints.json").read_text())["ports"]["postgres"]
    for url in (f"http://127.0.0.1:{postgres}/", "http://0x7f.1/", "http://169.254.169.254/latest/meta-data/"):
        refused = mesh.parley("ingest", url)
        assert (refused.returncode, "ADDRESS_NOT_ALLOWED" in refused.stdout + refused.stderr) == (1, True)
