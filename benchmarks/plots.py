"""The plots of a run, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

Points = Sequence[tuple[float, ...]]

# The same data give the same file, and its text stays text.
_STYLE: Any = {"svg.hashsalt": "latchgate", "svg.fonttype": "none", "font.size": 9}
_METADATA = {"Date": None}


def latency(path: Path, curves: Mapping[str, Points]) -> None:
    """Latency against offered load. curves: by transport, of (calls a second, median, p99), both in milliseconds."""
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(7, 3.2), layout="constrained")
        axes = canvas.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for ax, (transport, points) in zip(axes, curves.items(), strict=True):
            loads = [point[0] for point in points]
            ax.plot(loads, [point[2] for point in points], "o-", label="p99", color="#c44e52")
            ax.plot(loads, [point[1] for point in points], "o-", label="median", color="#4c72b0")
            ax.set(title=transport, xlabel="offered calls a second", yscale="log")
            ax.grid(visible=True, alpha=0.3)
        axes[0].set_ylabel("milliseconds")
        axes[0].legend()
        canvas.savefig(path, format="svg", metadata=_METADATA)


def growth(path: Path, curves: Mapping[str, Points]) -> None:
    """What a Verify costs as something grows. curves: by what grows, of (how many, microseconds)."""
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(9, 2.4), layout="constrained")
        axes = canvas.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for ax, (name, points) in zip(axes, curves.items(), strict=True):
            ax.plot([point[0] for point in points], [point[1] for point in points], "o-", color="#4c72b0")
            ax.set(title=name, xscale="log")
            ax.grid(visible=True, alpha=0.3)
        axes[0].set_ylabel("µs CPU a Verify")
        axes[0].set_ylim(0, 1.1 * max(point[1] for points in curves.values() for point in points))
        canvas.savefig(path, format="svg", metadata=_METADATA)


def replicas(path: Path, curves: Mapping[str, Points]) -> None:
    """What replicas cost. curves: by what is measured, of (how many replicas, how much)."""
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(9, 2.6), layout="constrained")
        axes = canvas.subplots(1, len(curves), squeeze=False)[0]
        for ax, (name, points) in zip(axes, curves.items(), strict=True):
            ax.plot([point[0] for point in points], [point[1] for point in points], "o-", color="#4c72b0")
            ax.set(title=name, xlabel="replicas")
            ax.set_ylim(0, 1.1 * max(point[1] for point in points))
            ax.grid(visible=True, alpha=0.3)
        canvas.savefig(path, format="svg", metadata=_METADATA)
