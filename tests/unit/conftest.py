"""How Hypothesis runs here: the same examples every time, few enough that the whole directory takes seconds."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("unit")
