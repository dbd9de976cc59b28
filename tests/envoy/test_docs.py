"""docs/envoy.md holds: its tables are the code's, its examples load, and its transcript is what `make demo` shows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

from latchgate_server.config import Settings
from latchgate_server.core.http_denials import MISCONFIGURED, UNAVAILABLE, HttpDenials
from latchgate_server.core.model import DenialReason
from latchgate_server.transport.identity_headers import NAMES
from tests.support.envoy import ROOT, binary

PAGE = ROOT / "docs/envoy.md"
# What differs from run to run.
MASKS = {r"\blg_[0-9A-Za-z]{22}\b": "KEY_ID", r";t=\d+": ";t=SECONDS", r"retry-after: \d+": "retry-after: SECONDS"}


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    text: str = found
    return text


def masked(text: str) -> str:
    for pattern, name in MASKS.items():
        text = re.sub(pattern, name, text)
    return text


def test_the_table_of_denials_is_complete_and_right() -> None:
    denials = HttpDenials({})
    expected = {reason.name: denials.of(reason) for reason in DenialReason if reason}
    expected |= {MISCONFIGURED: denials.misconfigured, UNAVAILABLE: denials.unavailable}
    rows = re.findall(
        r"^\| `([A-Z_]+)`[^|]*\| (\d+) \| `([A-Z_]+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name: (int(status), code) for name, status, code in rows} == {
        name: (denial.status, denial.code) for name, denial in expected.items()
    }


def test_every_header_and_the_default_sources_are_named() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in page] == []
    assert f"`{Settings.model_fields['credential_sources'].default}`" in page


def test_the_operators_own_words_load() -> None:
    HttpDenials(tomllib.loads(block("toml"))["denials"])


def test_the_recipe_for_the_clients_address_is_the_examples() -> None:
    recipe = yaml.safe_load(block("yaml"))
    example = (ROOT / "deploy/envoy/load-balancer.yaml").read_text(encoding="utf-8")
    (mutation,) = recipe["http_filters"][0]["typed_config"]["mutations"]["request_mutations"]
    filters = yaml.safe_load(example)["static_resources"]["listeners"][1]["filter_chains"][0]["filters"][0]
    mutations = filters["typed_config"]["http_filters"][0]["typed_config"]["mutations"]["request_mutations"]
    assert mutation in mutations


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE.read_text(encoding="utf-8"))
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []


@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the demonstration needs curl")
def test_the_transcript_is_what_the_demonstration_shows() -> None:
    binary()
    done = subprocess.run(
        [sys.executable, "-m", "demo"], cwd=ROOT, text=True, capture_output=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert masked(done.stdout) == masked(block("console"))
