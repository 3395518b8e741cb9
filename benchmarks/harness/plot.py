"""Pictures beside the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = "#b5123e"
THEIRS = "#8a94a6"


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """``value`` is its length; ``told`` stands at its end; ``right`` ones are solid, ``ours`` are in our colour."""

    name: str
    value: float
    told: str
    right: bool
    ours: bool


def bars(path: Path, title: str, found: Sequence[Bar], *, x: str) -> None:
    """Draw one bar a way, the shortest on top; hatched where some labels differ."""
    plt = _pyplot()
    ordered = sorted(found, key=lambda bar: -bar.value)
    figure, axis = plt.subplots(figsize=(10.5, 1.2 + 0.29 * len(ordered)), layout="constrained")
    for row, bar in enumerate(ordered):
        colour = OURS if bar.ours else THEIRS
        fill = colour if bar.right else "white"
        axis.barh(row, bar.value, color=fill, edgecolor=colour, hatch="" if bar.right else "////", height=0.7)
        axis.annotate(f" {bar.value:.2f}; {bar.told}", (bar.value, row), va="center", fontsize=8)
    axis.set_yticks(range(len(ordered)), [bar.name for bar in ordered], fontsize=8)
    axis.set_xlim(0, max(bar.value for bar in ordered) * 1.35)
    axis.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    axis.set_xlabel(x)
    axis.set_title(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curves(
    path: Path, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, log: bool = True
) -> None:
    """Draw named lines of (x, y)."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    for name, line in lines.items():
        ours = name.startswith("exactile")
        axis.plot(*zip(*line, strict=True), "o-", label=name, linewidth=2.2 if ours else 1.2, zorder=3 if ours else 2)
    if log:
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_title(title, fontsize=11)
    axis.grid(visible=True, alpha=0.25)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
