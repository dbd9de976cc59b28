"""The models of the lease protocol. `make model` checks all of them; here, that they are complete, and a few."""

from __future__ import annotations

import re

import pytest

from tests.model import check

MODELS = sorted({run.model for run in check.RUNS})


def test_every_model_is_checked() -> None:
    assert [path.stem for path in sorted(check.FOLDER.glob("*.pml"))] == MODELS


@pytest.mark.parametrize("model", MODELS)
def test_every_mutant_of_a_model_is_checked_and_explained(model: str) -> None:
    text = (check.FOLDER / f"{model}.pml").read_text()
    tested = set(re.findall(r"(?:#ifdef |#ifndef |defined\()([A-Z_]+)", text))
    with_defaults = set(re.findall(r"#ifndef ([A-Z_]+)\n#define \1 ", text))
    explained = set(re.findall(r"^ \*   ([A-Z_]+) ", text, re.MULTILINE))
    checked = {run.variant for run in check.RUNS if run.model == model and run.expected == check.FAILS}
    assert explained == checked
    assert tested - with_defaults == checked


@pytest.mark.skipif(bool(check.missing_tools()), reason=check.missing_tools() or "all is there")
def test_the_models_hold_and_mutants_of_them_fail() -> None:
    seen = [(run.model, run.variant, outcome.seen) for run, outcome in check.outcomes(check.QUICK_RUNS)]
    assert seen == [(run.model, run.variant, run.expected) for run in check.QUICK_RUNS]


def test_a_missing_spin_is_named_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert check.main([]) == 1
    assert capsys.readouterr().err.startswith("spin and cc cannot be found; ")
