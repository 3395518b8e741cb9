"""One network over larger and larger images: time and memory of one pass, of MONAI, of exactile's plans."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.record import Table
from benchmarks.harness.turns import floor_of, in_turn, median_ratio
from benchmarks.side_by_side.asking import Ask
from benchmarks.side_by_side.cases import Entry, entries
from benchmarks.side_by_side.subject import write_image

MIB = 1 << 20
FEATURES = 16
COLUMNS = ("image", "way", "seconds|.2f", "by the floor|.2f", "Mpx/s|.2f", "peak MiB|.0f")
NOTE = (
    "U-Net, 16 features; exactile within 1 GiB. Beyond 4096 x 4096 one pass would take more than 12 GiB; the floor "
    "is the fastest of one pass and naive tiles of 512."
)
WAYS = (
    "one whole pass", "naive tiles 512", "MONAI, overlap 0.25 (its default)", "exactile, tiles", "exactile, strips",
)  # fmt: skip
LARGEST_PASS = 4096
LARGEST = ("naive tiles 512", "exactile, strips")
"""Beyond, once: the side by side has the others at that size."""

Curves = dict[str, list[tuple[float, float]]]


def measure(ask: Ask, place: Path, sides: list[int], rounds: int) -> tuple[Table, Curves]:
    """Return the table, and for each way its (side, peak MiB)."""
    table = Table(title="Against the image's size", columns=COLUMNS, note=NOTE)
    chosen = {entry.title: entry for entry in entries(FEATURES) if entry.title in WAYS}
    memory: Curves = {title: [] for title in WAYS}
    for side in sides:
        image = write_image(place / f"size{side}.tif", side)
        once = side > LARGEST_PASS
        titles = [title for title in WAYS if title in LARGEST or not once]
        ways = {title: chosen[title] for title in titles}
        add_size(table, replace(ask, image=image), side, ways, 1 if once else rounds, memory)
        image.unlink()
    return table, {_short(title): line for title, line in memory.items()}


def add_size(table: Table, ask: Ask, side: int, chosen: dict[str, Entry], rounds: int, memory: Curves) -> None:
    peaks: dict[str, int] = {}

    def run(title: str) -> float:
        answer = ask(chosen[title])
        peaks[title] = max(peaks.get(title, 0), answer["peak_bytes"])
        return answer["seconds"]

    seconds = in_turn({t: lambda t=t: run(t) for t in chosen}, rounds, say=f"{side} x {side}")
    floor = floor_of(seconds, [title for title in chosen if chosen[title].family in {"whole", "naive"}])
    for title, taken in seconds.items():
        middle = statistics.median(taken)
        memory[title].append((side, peaks[title] / MIB))
        ratio = median_ratio(taken, floor)
        table.add(f"{side} x {side}", title, middle, ratio, side**2 / 1e6 / middle, peaks[title] / MIB)


def _short(title: str) -> str:
    return title.partition(" (")[0]
