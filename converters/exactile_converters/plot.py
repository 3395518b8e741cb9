"""Draw the halo: how the needed interval widens from the output to the image, layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exactile.errors import OptionError, SinkError
from exactile.sinks.files.target import check_writable
from exactile_converters.geometry.halo_path import HaloProfile, Layer, Skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, ACCENT, BOX = "#22313f", "#9aa7b1", "#d1495b", "#f3e2b3"
SHADES = ("#bcdff1", "#8cc0de", "#5f9dc6", "#3f79ab", "#2c5a8c", "#1f406b", "#14294a")
"""Colours of layers at 1, 1/2, 1/4, ... of the image's resolution."""

BAR = 0.72
ROW_INCHES, HEAD_INCHES = 0.17, 1.75
DPI, LARGEST_SIDE_PX = 150, 30_000
LONGEST_NAME = 30
ENDINGS = (".png", ".svg", ".pdf")


def check_plot(path: Path, *, overwrite: bool) -> None:
    """Raise OptionError or SinkError if the picture cannot be drawn or written to ``path``."""
    if path.suffix.lower() not in ENDINGS:
        raise OptionError(f"--plot writes {', '.join(ENDINGS)}; {path} has another ending")
    try:
        import matplotlib  # noqa: F401, ICN001 - only asked whether it is there
    except ImportError as error:
        raise OptionError("--plot needs matplotlib, which is not installed: pip install 'exactile[report]'") from error
    check_writable(path, overwrite=overwrite)


def plot_halo(profile: HaloProfile, path: Path, *, title: str, overwrite: bool = False) -> None:
    """Draw ``profile`` into ``path``. Raises as ``check_plot``; the file appears only when it is complete."""
    check_plot(path, overwrite=overwrite)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        figure = draw_halo(profile, title=title)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks are drawn as boxes
            figure.savefig(part, dpi=min(DPI, LARGEST_SIDE_PX / figure.get_figheight()))
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from error


def draw_halo(profile: HaloProfile, *, title: str) -> Figure:
    """Return the figure: image pixels along x, from the output box's first; output at the top, image at the bottom."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = profile.layers
    height = ROW_INCHES * (len(rows) + 1) + HEAD_INCHES
    figure = Figure(figsize=(11, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.215, 0.75 / height, 0.715, 1 - HEAD_INCHES / height))
    _draw_box(axes, profile)
    _draw_bars(axes, rows)
    _draw_skips(axes, profile.skips, rows)
    _draw_path(axes, profile)
    _dress(axes, profile)
    _write_head(figure, profile, title, height)
    return figure


def _widest(rows: Sequence[Layer]) -> tuple[float, float]:
    return float(min(row.start for row in rows)), float(max(row.stop for row in rows))


def _draw_box(axes: Axes, profile: HaloProfile) -> None:
    rows = len(profile.layers)
    axes.axvspan(0, profile.stride_px, color=BOX, lw=0, zorder=0)
    axes.barh(-1, profile.stride_px, left=0, height=BAR, color=ACCENT, zorder=4)
    axes.set_ylim(rows - 0.35, -1.75)


def _draw_bars(axes: Axes, rows: Sequence[Layer]) -> None:
    for y, row in enumerate(rows):
        start, stop = float(row.start), float(row.stop)
        axes.barh(y, stop - start, left=start, height=BAR, color=_shade(row), zorder=2)


def _shade(row: Layer) -> str:
    level = 0
    while row.scale * 2**level < 1 and level < len(SHADES) - 1:
        level += 1
    return SHADES[level]


def _draw_skips(axes: Axes, skips: Sequence[Skip], rows: Sequence[Layer]) -> None:
    """Draw brackets at the right, the longest outermost: from where a map is computed to where it is read again."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Outline

    first, last = _widest(rows)
    unit = (last - first) / 100
    spans = sorted(((_row_at(rows, skip.made), _row_after(rows, skip.used)) for skip in skips), key=_rows_between)
    for lane, (made, used) in enumerate(spans):
        x, bend = last + unit * (2.5 + 1.8 * lane), unit * 1.2
        start, end = float(rows[made].stop) + unit * 0.4, (float(rows[used].stop) if used >= 0 else 0.0) + unit * 0.4
        corners = [(start, made), (x - bend, made), (x, made), (x, made - 0.9)]
        corners += [(x, used + 0.9), (x, used), (x - bend, used), (end, used)]
        turn = [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
        outline = Outline(corners, [Outline.MOVETO, *turn, *turn, Outline.LINETO])
        axes.add_patch(
            FancyArrowPatch(path=outline, arrowstyle="-|>", mutation_scale=7, lw=1, color=FAINT, fill=False, zorder=1)
        )
    axes.set_xlim(first - unit * 2, last + unit * (4 + 1.8 * max(1, len(skips))))


def _rows_between(span: tuple[int, int]) -> int:
    made, used = span
    return made - used


def _row_at(rows: Sequence[Layer], position: int) -> int:
    """Return the row of the last layer computed up to ``position``; rows run from the output to the image."""
    return next(y for y, row in enumerate(rows) if row.position <= position)


def _row_after(rows: Sequence[Layer], position: int) -> int:
    """Return the row of the first layer computed from ``position`` on; -1 for the output itself."""
    return next((y for y, row in reversed(list(enumerate(rows))) if row.position >= position), -1)


def _draw_path(axes: Axes, profile: HaloProfile) -> None:
    """Draw the outermost pixel, followed through the operators that make the halo."""
    rows = {row.node: y for y, row in enumerate(profile.layers)}
    start, sign = (0, -1) if profile.side in {"top", "left"} else (profile.stride_px, 1)
    xs, ys = [float(start)], [-1.0]
    for step in profile.steps:
        if step.node in rows:
            y = rows[step.node]
            xs += [float(start + sign * (step.cumulative - step.adds)), float(start + sign * step.cumulative)]
            ys += [y, y + 0.5]
    axes.plot([*xs, xs[-1]], [*ys, len(rows) - 1], color=ACCENT, lw=1.4, zorder=5, solid_joinstyle="round")


def _dress(axes: Axes, profile: HaloProfile) -> None:
    labels = ["output box", *map(_label, profile.layers)]
    axes.set_yticks(range(-1, len(profile.layers)), labels, fontsize=7, color=INK, parse_math=False)
    axes.tick_params(axis="both", length=0, colors=INK, labelsize=7)
    adds = {step.node: step.adds for step in profile.steps}
    _note(axes, -1, "adds")
    for y, row in enumerate(profile.layers):
        if row.node in adds:
            _note(axes, y, f"{float(adds[row.node]):+g}")
    _write_halo(axes, profile)
    axes.set_xlabel(f"image pixels from the output box's first one ({_direction(profile)})", fontsize=8, color=INK)
    axes.grid(axis="x", color="#e6eaed", lw=0.6, zorder=0)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _note(axes: Axes, y: int, text: str) -> None:
    transform: Any = axes.get_yaxis_transform()
    axes.text(1.045, y, text, transform=transform, fontsize=7, color=ACCENT, va="center", ha="right")


def _write_halo(axes: Axes, profile: HaloProfile) -> None:
    """Write the halo on both sides, at the ends of the image's own bar."""
    image, y = profile.layers[-1], len(profile.layers) - 1
    first, last = _widest(profile.layers)
    gap = (last - first) / 150
    before, after = float(-image.start), float(image.stop - profile.stride_px)
    style: dict[str, Any] = {"fontsize": 7, "weight": "bold", "color": INK, "va": "center", "zorder": 6}
    axes.text(float(image.start) + gap, y, f"{before:g}", ha="left", **style)
    axes.text(float(image.stop) - gap, y, f"{after:g}", ha="right", **style)


def _label(row: Layer) -> str:
    if row.op == row.node:
        return row.node
    name = short_name(row.node, row.op)
    return f"{name if len(name) <= LONGEST_NAME else f'…{name[1 - LONGEST_NAME :]}'}  {row.op}"


def short_name(node: str, op: str) -> str:
    """Shorten ``/ups.0/ups.0.conv/Conv`` to ``ups.0.conv``: without the operator, and without repeated parts."""
    parts = [part for part in node.split("/") if part]
    if len(parts) > 1 and parts[-1] == op:
        parts.pop()
    kept = [part for part, following in pairwise([*parts, ""]) if not following.startswith(part)]
    return "/".join(kept) or node


def _direction(profile: HaloProfile) -> str:
    return "top to bottom" if profile.side in {"top", "bottom"} else "left to right"


def _write_head(figure: Figure, profile: HaloProfile, title: str, height: float) -> None:
    from matplotlib.patches import Patch

    halo = float(profile.steps[-1].cumulative) if profile.steps else 0.0
    figure.text(0.02, 1 - 0.28 / height, title, fontsize=13, weight="bold", color=INK, va="center", parse_math=False)
    words = (
        f"What a box of {profile.stride_px} pixels needs of every layer, from the output down to the image. "
        f"The {profile.side} halo is {halo:g} pixels; in red what makes it, and by how much."
    )
    figure.text(0.02, 1 - 0.55 / height, words, fontsize=8.5, color=INK, va="center")
    levels = sorted({_shade(row) for row in profile.layers}, key=SHADES.index)
    names = ["full resolution or more" if shade == SHADES[0] else f"1/{2 ** SHADES.index(shade)}" for shade in levels]
    figure.legend(
        handles=[Patch(color=shade, label=name) for shade, name in zip(levels, names, strict=True)],
        loc="center left",
        bbox_to_anchor=(0.015, 1 - 0.8 / height),
        ncols=len(levels),
        frameon=False,
        fontsize=7.5,
        handlelength=1.2,
        handleheight=0.8,
        columnspacing=1.2,
        labelcolor=INK,
        borderpad=0,
    )
