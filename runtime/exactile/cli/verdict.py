"""Print a verification."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text


def print_verdict(found: dict[str, Any]) -> None:
    """Print the plain data of a verification on stdout, as tables."""
    parts: list[Any] = [_halo(found["probe"]), _strides(found["probe"]), *_integers(found["probe"])]
    parts += [Text(f"along {axis}: {note}") for axis in ("y", "x") if (note := found["probe"][axis]["note"])]
    compared = found["tiled_against_whole"]
    parts += ["", *(_comparison(compared) if compared else [Text(f"tiled against whole: {found['refusal']}")])]
    if found["passes"]:
        parts += ["", *_passes(found["passes"])]
    if found["sweep"]:
        parts += ["", _points("halo, px", "halo_px", found["sweep"]["halos"])]
        if found["sweep"]["offsets"]:
            parts += ["", _points("start off by", "offset_px", found["sweep"]["offsets"])]
    if found["report"]:
        parts += ["", Text(f"report: {found['report']}")]
    conclusion = "the claim holds" if found["holds"] else "THE CLAIM FAILS"
    Console(highlight=False, soft_wrap=True).print(Group(*parts, "", Text(f"{found['model']}: {conclusion}")))


def _halo(probe: dict[str, Any]) -> Table:
    table = _table("halo, px", "claimed", "measured", "integer weights", "visible", "verdict")
    for axis in ("y", "x"):
        for side in probe[axis]["sides"]:
            more = " or more" if side["at_least"] else ""
            table.add_row(
                side["side"],
                str(side["claimed_px"]),
                f"{side['measured_px']}{more}",
                "-" if side["integer_px"] is None else str(side["integer_px"]),
                str(side["visible_px"]),
                side["verdict"],
            )
    return table


def _strides(probe: dict[str, Any]) -> Table:
    table = _table("stride, px", "claimed", "shifts that only shift the output", "verdict")
    for axis in ("y", "x"):
        stride = probe[axis]["stride"]
        shifts = ", ".join(map(str, stride["commuting_shifts_px"])) or "none"
        table.add_row(axis, str(stride["claimed_px"]), shifts, stride["verdict"])
    return table


def _integers(probe: dict[str, Any]) -> list[Text]:
    """Return a line for each axis that integers pass along."""
    lines = []
    for axis in ("y", "x"):
        tried = probe[axis]["integer_weights"]
        if tried is None:
            continue
        beyond, idle = tried["changed_from_beyond"], tried["unchanged_by_the_last_pixel"]
        outside = f"change a box at the {' and '.join(beyond)}" if beyond else "change nothing"
        inside = f"not at the {' and '.join(idle)}" if idle else "every time"
        shifts = ", ".join(map(str, tried["commuting_shifts_px"])) or "none"
        lines.append(
            f"integer weights along {axis}: {tried['verdict']}; {tried['boxes']} aligned boxes: pixels beyond the halo "
            f"{outside}, its last pixel changes them {inside}; {tried['residues']} phases: shifts that only shift the "
            f"output: {shifts}"
        )
    return [Text(line) for line in lines]


def _comparison(found: dict[str, Any]) -> list[Text]:
    height, width = found["size"]
    subject = "noise"
    if found["on"] == "image":
        subject = "the image"
        if found["size"] != found["image_size"]:
            top, left = found["crop_origin"]
            of = " x ".join(map(str, found["image_size"]))
            subject = f"the part from ({top}, {left}) of the image of {of} pixels: one pass over all is too much"
    same = "bit for bit the same" if found["bit_identical"] else f"{found['different_values']} values differ"
    tile = " x ".join(map(str, found["tile"]))
    largest, tolerance, rmse = (_number(found[key]) for key in ("max_abs", "tolerance", "rmse"))
    lines = [
        f"tiled against whole: {height} x {width} pixels, {subject}; {found['tiles']} tiles of {tile}",
        f"  {found['different_labels']} different labels ({found['of_these_ties']} of them ties), {same}",
        f"  largest difference {largest} (tolerated {tolerance}), RMSE {rmse}",
    ]
    if found["against_float64"]:
        ours, one_pass, allowed = _errors(found["against_float64"])
        lines.append(f"  largest error against float64 {ours}, of one pass {one_pass} (allowed {allowed})")
    if found["first_different_pixel"]:
        lines.append(f"  first different pixel (y, x): {tuple(found['first_different_pixel'])}")
    return [Text(line) for line in lines]


def _errors(found: dict[str, Any] | None, spec: str = ".3g") -> tuple[str, str, str]:
    """Return the largest error against float64, that of one pass, and what is allowed."""
    if found is None:
        return "-", "-", "-"
    a, b, c = (_number(found[name], spec) for name in ("max_abs", "one_pass_max_abs", "allowed"))
    return a, b, c


def _passes(found: dict[str, Any]) -> list[Any]:
    """Return all ways to run a network that takes statistics of the whole image."""
    title = (
        f"{found['statistics']} statistics of the whole image, in {found['levels']} passes before that of the result"
    )
    table = _table("image", "cut in", "kept", "apart", "labels", "error", "one pass", "allowed", "")
    for way in found["ways"]:
        table.add_row(
            " x ".join(map(str, way["size"])),
            f"{way['tiles']} {way['plan']}s",
            "yes" if way["kept_maps"] else "no",
            _number(way["max_abs"], ".1e"),
            str(way["different_labels"]),
            *_errors(way["against_float64"], ".1e"),
            "holds" if way["holds"] else "FAILS",
        )
    notes = [f"not compared with float64: {found['no_float64']}"] if found["no_float64"] else []
    if any(way["against_float64"] for way in found["ways"]):
        notes.append("error: against a pass in float64, and that of one pass; apart, labels: against one pass")
    notes += [f"not tried: {reason}" for reason in found["untried"]]
    return [Text(title), table, *(Text(f"  {note}") for note in notes)]


def _points(title: str, key: str, points: list[dict[str, Any]]) -> Table:
    table = _table(title, "tiles", "cost", "RMSE", "largest", "labels differ")
    for point in points:
        table.add_row(
            str(point[key]),
            str(point["tiles"]),
            f"{point['computed_over_wanted']:.2f}",
            _number(point["rmse"]),
            _number(point["max_abs"]),
            str(point["different_labels"]),
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name == "verdict" else "right")
    return table


def _number(value: float | str, spec: str = ".3g") -> str:
    return value if isinstance(value, str) else format(value, spec)
