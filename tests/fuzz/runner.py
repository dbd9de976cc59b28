"""Runs a target on random values: the same ones for the same seed."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import Target


def fuzz(target: Target, examples: int, number: int) -> None:
    """Try so many values. Raises what the property raises, with the smallest value found that makes it."""
    _, values, check = target
    # Values that a running server has seen do not fail alike a second time, so no database of them is kept, and what
    # fails is shrunk with that in mind.
    bounded = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )
    run = seed(number)(bounded(given(values)(check)))
    run()
