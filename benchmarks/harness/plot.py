"""Pictures beside the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OURS = "#b5123e"
THEIRS = "#8a94a6"


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def trade_off(
    path: Path, title: str, points: Sequence[tuple[str, float, float, bool]], *, x: str, y: str, floor: float
) -> None:
    """Named points (name, x, y, whether ours): what a way costs against how wrong it is; zeros sit at ``floor``."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(9, 5.4), layout="constrained")
    for name, across, up, ours in points:
        colour = OURS if ours else THEIRS
        axis.scatter(across, max(up, floor), color=colour, zorder=3)
        axis.annotate(name, (across, max(up, floor)), textcoords="offset points", xytext=(5, 4), fontsize=7.5)
    axis.set_yscale("log")
    axis.axhline(floor, color="grey", linewidth=0.6, linestyle=":")
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_title(title, fontsize=11)
    axis.grid(visible=True, alpha=0.25)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curves(
    path: Path, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, log: bool = True
) -> None:
    """Named lines of (x, y)."""
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
