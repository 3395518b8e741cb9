"""Write the report: one HTML file that contains its pictures."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from exactile.errors import OutputExistsError, SinkError
from exactile_converters.verify.comparison import DoubleError
from exactile_converters.verify.pictures import curve_png, map_png, require_matplotlib
from exactile_converters.verify.sweep import SweepPoint
from exactile_converters.verify.verification import Verification
from exactile_converters.verify.ways import PassesProof

PAGE = "index.html"
MARK = '<meta name="generator" content="exactile verify">'

TEMPLATE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
$mark
<title>$title</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border: 1px solid #ccc; padding: .25em .75em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
.holds { color: #06632b; } .fails { color: #a40000; }
code { background: #f4f4f4; padding: .1em .3em; }
</style>
</head>
<body>
$body
</body>
</html>
""")


def check_directory(directory: Path) -> None:
    """Raise OutputExistsError unless ``directory`` is new, empty or an earlier report; also require matplotlib."""
    require_matplotlib()
    if directory.exists() and not directory.is_dir():
        raise OutputExistsError(f"{directory} is a file; --report takes a folder")
    if directory.is_dir() and any(directory.iterdir()) and not _is_report(directory):
        raise OutputExistsError(f"{directory} is not empty and no earlier report; choose another folder")


def _is_report(directory: Path) -> bool:
    page = directory / PAGE
    return page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace")[:1000]


def write_report(directory: Path, found: Verification, facts: Mapping[str, str]) -> Path:
    """Write ``directory``/index.html, complete or not at all; ``facts`` are versions, hashes, the command.

    Raises OutputExistsError as ``check_directory`` does, SinkError where nothing can be written.
    """
    check_directory(directory)
    verdict = "holds" if found.holds else "fails"
    parts = [
        f"<h1>{_text(found.model_name)}: the claim <span class={verdict}>{verdict}</span></h1>",
        _probe_part(found),
        _comparison_part(found),
        _passes_part(found.passes),
        _sweep_part(found),
        "<h2>How this was made</h2>",
        _table(["what", "value"], facts.items()),
    ]
    page = TEMPLATE.substitute(mark=MARK, title=f"exactile verify {_text(found.model_name)}", body="\n".join(parts))
    target, part = directory / PAGE, directory / f".{PAGE}.{os.getpid()}.part"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SinkError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _probe_part(found: Verification) -> str:
    rows = [
        (
            side.side,
            side.claimed_px,
            side_text(side.measured_px, at_least=side.at_least),
            "-" if side.integer_px is None else side.integer_px,
            side.visible_px,
            side.verdict,
        )
        for probe in found.probes
        for side in probe.sides
    ]
    strides = [
        (probe.axis, probe.stride, ", ".join(map(str, probe.commuting_shifts)) or "none", probe.stride_verdict)
        for probe in found.probes
    ]
    notes = "".join(f"<p>Along {probe.axis}: {_text(probe.note)}.</p>" for probe in found.probes if probe.note)
    explained = (
        "<p>Pixels were changed and the outputs watched, in ONNX Runtime, at the tensor "
        f"<code>{_text(found.probed_tensor)}</code>. <em>Measured</em>: with weights that let no influence "
        "vanish, poisoned. <em>Integer weights</em>: a one in an image of zeros, all weights 1, so that sums "
        "are exact. <em>Visible</em>: with the network's own weights, in floating point. All in input pixels "
        "beyond a stride-aligned box.</p>"
    )
    sides = _table(["side", "claimed halo", "measured", "integer weights", "visible", "verdict"], rows)
    shifts = _table(["axis", "claimed stride", "shifts that only shift the output", "verdict"], strides)
    return f"<h2>Which pixels matter</h2>\n{explained}\n{sides}\n{shifts}\n{_integer_part(found)}\n{notes}"


def _integer_part(found: Verification) -> str:
    rows = [
        (
            probe.axis,
            tried.boxes,
            tried.residues,
            ", ".join(tried.beyond) or "none",
            ", ".join(tried.idle) or "none",
            ", ".join(map(str, tried.commuting_shifts)) or "none",
            tried.verdict,
        )
        for probe in found.probes
        if (tried := probe.integers) is not None
    ]
    if not rows:
        return ""
    explained = (
        "<p>With integer weights, aligned boxes in a row: all pixels beyond the halo were set, then the last one "
        "within it; then one pixel of each phase (position modulo the stride).</p>"
    )
    head = ["integer weights", "boxes", "phases", "sides changed from beyond the halo"]
    head += ["sides that the halo's last pixel does not change", "shifts that only shift the output", "verdict"]
    return f"{explained}\n{_table(head, rows)}"


def side_text(measured_px: int, *, at_least: bool) -> str:
    """Format the measured reach for display."""
    return f"{measured_px} or more" if at_least else str(measured_px)


def _comparison_part(found: Verification) -> str:
    comparison = found.comparison
    if comparison is None:
        return f"<h2>Tiled against one whole pass</h2>\n<p>Impossible: {_text(found.refusal)}.</p>"
    difference = comparison.difference
    pixels = comparison.pixels
    subject = "noise"
    if pixels.crop is not None and pixels.image_size is not None:
        top, left = pixels.crop.y.start, pixels.crop.x.start
        subject = f"the part from ({top}, {left}) of an image of {pixels.image_size[0]} x {pixels.image_size[1]} pixels"
    rows = [
        ("on", f"{pixels.size[0]} x {pixels.size[1]} pixels: {subject}"),
        ("tiles", f"{comparison.tiles} of {comparison.tile[0]} x {comparison.tile[1]} pixels"),
        ("different labels", f"{difference.different_labels} ({difference.ties} of them ties)"),
        ("largest difference", f"{difference.max_abs:.3g} (tolerated: {difference.tolerance:.3g})"),
        ("RMSE", f"{difference.rmse:.3g}"),
        ("bit for bit the same", "yes" if difference.bit_identical else "no"),
        ("first different pixel (y, x)", difference.first or "none"),
    ]
    shown = map_png(difference.error_map, "Difference of tiled and whole, claimed halo")
    return "\n".join(["<h2>Tiled against one whole pass</h2>", _table(["what", "value"], rows), _image(shown)])


def _passes_part(proof: PassesProof | None) -> str:
    if proof is None:
        return ""
    rows = [
        (
            way.plan,
            f"{way.pixels.size[0]} x {way.pixels.size[1]}",
            way.tiles,
            ", ".join(map(str, way.pass_tiles)),
            "yes" if way.kept_maps else "no",
            f"{way.difference.max_abs:.3g}",
            way.difference.different_labels,
            *_float64_cells(way.float64),
            "holds" if way.holds else "FAILS",
        )
        for way in proof.ways
    ]
    head = ["plan", "image", "pieces", "pieces of passes", "maps kept", "differs from one pass by", "different labels"]
    head += ["error against float64", "of one pass", "allowed", "verdict"]
    explained = (
        f"<p>The network takes {proof.statistics} statistics of the whole image; {proof.levels} passes over it find "
        "them, and one more gives the result. What is said of the halo above holds with these statistics known. Each "
        "way to run the passes, against one pass in ONNX Runtime and, where there is one, a pass in float64.</p>"
    )
    reasons = [f"not compared with float64: {proof.no_float64}"] if proof.no_float64 else []
    notes = "".join(f"<p>{_text(note)}</p>" for note in [*reasons, *(f"not tried: {one}" for one in proof.untried)])
    return f"<h2>Passes</h2>\n{explained}\n{_table(head, rows)}\n{notes}"


def _float64_cells(error: DoubleError | None) -> tuple[str, str, str]:
    if error is None:
        return "-", "-", "-"
    return f"{error.max_abs:.3g}", f"{error.one_pass_max_abs:.3g}", f"{error.allowed:.3g}"


def _sweep_part(found: Verification) -> str:
    sweep = found.sweep
    if sweep is None:
        return ""
    halos = _points_table("halo, px", [(point.halo_px, point) for point in sweep.halos])
    offsets = _points_table("tiles start off the stride by, px", [(point.offset_px, point) for point in sweep.offsets])
    seams = map_png(sweep.error_map, f"Difference of tiled and whole, halo of at most {sweep.map_halo_px} px")
    return "\n".join(
        ["<h2>Error against halo</h2>", _image(curve_png(sweep)), halos, _image(seams)]
        + (["<h2>Error against alignment</h2>", offsets] if sweep.offsets else [])
    )


def _points_table(name: str, points: Iterable[tuple[int, SweepPoint]]) -> str:
    rows = [
        (
            value,
            point.tiles,
            f"{point.computed_over_wanted:.2f}",
            f"{point.rmse:.3g}",
            f"{point.max_abs:.3g}",
            point.different_labels,
        )
        for value, point in points
    ]
    return _table([name, "tiles", "computed / wanted", "RMSE", "largest difference", "different labels"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{_text(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _image(base64_png: str) -> str:
    return f'<p><img alt="" src="data:image/png;base64,{base64_png}"></p>'


def _text(value: object) -> str:
    return html.escape(str(value))
