"""Lays out the pages of the site: documents from all over the checkout, and pages that are worked out.

The documents are written to be read in a checkout, so their links name files of it. On the site a link to a document
leads to its page, and one to any other file of the checkout becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from website.api_reference import api_page, errors_page

ROOT = Path(__file__).resolve().parents[1]

ELSEWHERE = {
    "README.md": "index.md",
    "client/README.md": "client.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/go/README.md": "examples/go.md",
    "examples/java/README.md": "examples/java.md",
    "examples/typescript/README.md": "examples/typescript.md",
}
"""Documents outside of docs/, and the pages that they become."""

WORKED_OUT = {"reference/api.md": api_page, "reference/errors.md": errors_page}
"""Pages that nobody writes."""

_PROTOS = {
    f"protos/latchgate/v1/{name}.proto": page
    for page, names in {
        "reference/api.md": ("admin_service", "verify_service", "key", "tenant", "audit"),
        "reference/errors.md": ("decision", "error_reason"),
    }.items()
    for name in names
}
"""Where links to a proto lead."""

_DOCS = "docs/"
_IMAGES = "images/"
# Code comes first, as nothing in it is a link; the text of a link may have code in it.
_CODE_OR_LINK = re.compile(
    r"^```.*?^```$|(?P<image>!?)\[(?P<text>(?:`[^`\n]*`|[^\]`])*)\]\((?P<target>[^)\s]+)\)|`[^`\n]+`",
    re.DOTALL | re.MULTILINE,
)
_NO_FILE = re.compile(r"[a-z]+:|#")


class BrokenLink(Exception):
    """A document names a file that is not there."""


def lay_out(folder: Path) -> None:
    """Write every page, and the images that they show, into an empty folder. Raises BrokenLink."""
    shutil.rmtree(folder, ignore_errors=True)
    places = _places()
    for source, page in places.items():
        target = folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            text = (ROOT / source).read_text(encoding="utf-8")
            target.write_text(_with_links_of_the_site(text, source, places), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, target)
    for page, content in WORKED_OUT.items():
        (folder / page).write_text(content(), encoding="utf-8")


def _places() -> Mapping[str, str]:
    """Where each file of the checkout that is on the site stands there."""
    documents = [path.relative_to(ROOT).as_posix() for path in (ROOT / _DOCS).rglob("*") if path.is_file()]
    plots = [path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks" / "results").glob("full-*.svg")]
    return (
        {source: source.removeprefix(_DOCS) for source in sorted(documents)}
        | {source: _IMAGES + posixpath.basename(source) for source in sorted(plots)}
        | ELSEWHERE
    )


def _with_links_of_the_site(text: str, source: str, places: Mapping[str, str]) -> str:
    folder, page_folder = posixpath.dirname(source), posixpath.dirname(places[source])

    def link(match: re.Match[str]) -> str:
        if match["target"] is None or _NO_FILE.match(match["target"]):
            return match[0]
        name, _, anchor = match["target"].partition("#")
        path = posixpath.normpath(posixpath.join(folder, name))
        if not (ROOT / path).exists():
            raise BrokenLink(f"{source} links to {name}, and there is no {path}")
        page = places.get(path) or _PROTOS.get(path)
        if page is None:
            return match["text"]
        target = posixpath.relpath(page, page_folder or ".")
        return f"{match['image']}[{match['text']}]({target}{f'#{anchor}' if anchor else ''})"

    return _CODE_OR_LINK.sub(link, text)
