"""A JPEG TIFF to a TIFF of labels: pixels a second, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_kit.figures.traced import shares
from benchmarks.gpu_kit.networks import model
from benchmarks.gpu_kit.pictures import jpeg_tiff, picture
from benchmarks.gpu_kit.provider import Binding, gpu_session
from exactile import open_sink, open_source
from exactile.errors import ExactileError
from exactile.runs.summary import Summary
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.trace import Trace

Plan = tuple[str, Sequence[int] | None]
WARM_UP_PX = 512


def network(
    name: str,
    side: int,
    binding: Binding,
    folder: Path,
    plans: Sequence[Plan],
    otherwise: Plan | None = None,
) -> dict[str, Any]:
    """Return a check: each plan once, and ``otherwise`` where one of them failed. The first one's trace is kept.

    Runs of one session: what the first one loads of the GPU's libraries, the others find. It comes after a small image.
    """
    rows: list[dict[str, Any]] = []
    with gpu_session(model(name, folder), binding) as session:
        session.segment(ArraySource(picture(name, WARM_UP_PX, WARM_UP_PX)), ArraySink())

        def add(plan: str, tile: Sequence[int] | None, kept: str | None) -> bool:
            row: dict[str, Any] = {"network": name, "side": side, "asked": f"{plan} {tile or ''}".strip()}
            try:
                row |= measured(session, side, folder, plan, (tile[0], tile[1]) if tile else None, kept)
            except ExactileError as error:
                row["failed"] = f"{type(error).__name__}: {error}"[:300]
            rows.append(row)
            return "failed" not in row

        well = [add(plan, tile, None if number else trace_file(name)) for number, (plan, tile) in enumerate(plans)]
        if otherwise is not None and not all(well):
            add(*otherwise, trace_file(name))
    return {"passed": all(well), "rows": rows}


def trace_file(name: str) -> str:
    return f"trace-{name.lower().replace(' ', '-')}.json"


def measured(
    session: Session, side: int, folder: Path, plan: str, tile: tuple[int, int] | None, kept: str | None
) -> dict[str, Any]:
    """Measure one run; ``seconds`` of all of it, the network's opening included."""
    trace = Trace()
    begin = time.perf_counter()
    summary = segment(session, side, folder, plan, tile, trace)
    seconds = time.perf_counter() - begin
    if kept is not None:
        trace.write(folder / kept)
    running = summary.seconds.total
    return {
        "plan": summary.plan,
        "tile": f"{summary.tile[0]} x {summary.tile[1]}",
        "tiles": summary.tiles,
        "computed / wanted": summary.computed_pixels / summary.wanted_pixels,
        "Mpx/s": side**2 / 1e6 / seconds,
        "seconds": seconds,
        "opening s": seconds - running,
        "Mpx/s, running": side**2 / 1e6 / running,
        **shares(trace.as_object()),
    }


def segment(
    session: Session, side: int, folder: Path, plan: str, tile: tuple[int, int] | None, trace: Trace
) -> Summary:
    source = open_source(jpeg_tiff(side, folder))
    try:
        sink = open_sink(folder / f"labels-{side}.tif", overwrite=True)
        return session.segment(source, sink, plan=plan, tile=tile, trace=trace.of("image"))
    finally:
        source.close()
