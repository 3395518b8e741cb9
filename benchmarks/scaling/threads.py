"""One thread and all: how much faster each way becomes."""

from __future__ import annotations

import statistics
from dataclasses import replace

from benchmarks.harness.record import Table
from benchmarks.harness.turns import in_turn
from benchmarks.side_by_side.asking import Ask
from benchmarks.side_by_side.cases import entries

WAYS = ("one whole pass", "naive tiles 512", "exactile, tiles", "exactile, strips")


def measure(ask: Ask, rounds: int, most: int, side: int) -> Table:
    columns = ("way", "1 thread, s|.2f", f"{most} threads, s|.2f", "faster by|.2f")
    table = Table(title=f"Against threads, U-Net, 16 features, {side} x {side}", columns=columns)
    chosen = {entry.title: entry for entry in entries(16) if entry.title in WAYS}
    ways = {
        (title, threads): lambda entry=entry, threads=threads: replace(ask, threads=threads)(entry)["seconds"]
        for title, entry in chosen.items()
        for threads in (1, most)
    }
    seconds = in_turn({f"{title}, {threads}": way for (title, threads), way in ways.items()}, rounds, say="threads")
    for title in chosen:
        one, many = seconds[f"{title}, 1"], seconds[f"{title}, {most}"]
        faster = statistics.median(a / b for a, b in zip(one, many, strict=True))
        table.add(title, statistics.median(one), statistics.median(many), faster)
    return table
