"""The documentation builds as a site, and every link of it leads somewhere."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from latchgate.v1 import admin_service_pb2, verify_service_pb2
from tests.support.postgres import Postgres
from tests.support.transcripts import Step, desk, masked
from website import pages, screens
from website.__main__ import BUILD

ROOT = Path(__file__).resolve().parents[2]


class _Html(HTMLParser):
    """The links of a page, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is not None and (name == "href" or (name == "src" and tag == "img")):
                self.links.append(value)
            elif value is not None and name in {"id", "name"}:
                self.anchors.add(value)


@cache
def _read(path: Path) -> _Html:
    return _Html(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site() -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "website"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return BUILD / "site"


def broken_links(site: Path) -> Iterator[str]:
    for path in site.rglob("*.html"):
        for link in _read(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{path.relative_to(site)}: {link}"
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in _read(target).anchors:
                yield f"{path.relative_to(site)}: {link} (no such heading)"


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    assert len(list(site.rglob("*.html"))) > 15
    assert not list(broken_links(site))


def test_every_call_of_the_api_is_described(site: Path) -> None:
    described = _read(site / "reference" / "api" / "index.html").anchors

    services = (admin_service_pb2.DESCRIPTOR, verify_service_pb2.DESCRIPTOR)
    calls = {
        method.name.lower()
        for file in services
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert not calls - described


def test_every_page_is_in_the_navigation(site: Path) -> None:
    def names(entries: list[Any]) -> Iterator[str]:
        for entry in entries:
            if isinstance(entry, str):
                yield entry
            else:
                [value] = entry.values()
                yield from names(value) if isinstance(value, list) else [value]

    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    laid_out = {path.relative_to(BUILD / "pages").as_posix() for path in (BUILD / "pages").rglob("*.md")}
    assert sorted(names(config["project"]["nav"])) == sorted(laid_out)


def test_a_link_to_a_file_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("See [there](gone.md), not `[here](code.md)`.", encoding="utf-8")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "ELSEWHERE", {})

    with pytest.raises(pages.BrokenLink, match=r"docs/page\.md links to gone\.md"):
        pages.lay_out(tmp_path / "pages")


# A row for each hour of a day, and what stands for the rest of a list.
_HOUR, _TOKEN = r"(?m)^\d{4}-\d\d-\d\d \d\d:00.*\n?", r"--page-token \S+"


def compared(picture: str) -> list[Step]:
    text = html.unescape("\n".join(re.findall(r"<text[^>]*>(.*?)</text>", picture))).replace("\xa0", " ")
    return masked([Step("", re.sub(_TOKEN, "TOKEN", re.sub(_HOUR, "", text)))])


def test_the_pictures_of_the_command_line_show_what_it_prints(postgres: Postgres) -> None:
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    try:
        with desk(postgres, folder) as made:
            shown = screens.screens(made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    assert sorted(shown) == sorted(path.stem for path in screens.FOLDER.glob("*.svg"))
    for name, text in shown.items():
        picture = (screens.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
        assert compared(picture) == compared(screens.picture(text)), f"python -m website.screens renews {name}"
