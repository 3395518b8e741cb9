"""Tiles and strips beside one pass over the same image, on the GPU, in turn.

``network s`` are those of the compute stream, between events; ``in all s`` those of the run: strips open
three networks.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_kit.correctness.plans import ONE_PASS, Way, tile_side
from benchmarks.gpu_kit.networks import model
from benchmarks.gpu_kit.pictures import picture
from benchmarks.gpu_kit.provider import Binding, gpu_session
from benchmarks.gpu_kit.sizes import sizes
from benchmarks.harness.turns import in_turn, median_ratio, ratios, spread
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource


def beside_one_pass(networks: Sequence[str], binding: Binding, folder: Path) -> dict[str, Any]:
    """Return a check: rows of seconds and ratios."""
    return {"passed": True, "rows": [row for name in networks for row in _rows(name, binding, folder)]}


def _rows(name: str, binding: Binding, folder: Path) -> list[dict[str, Any]]:
    side, deployed = sizes().one_pass, model(name, folder)
    image, tile = picture(name, side, side), tile_side(deployed.contract)
    strip_rows = sizes().rows
    found = [Way(name=ONE_PASS, plan="whole"), Way(name="tiles", plan="tile", tile=(tile, tile))]
    found += [Way(name="large tiles", plan="tile", tile=(side // 2, side // 2))] if tile < side // 2 else []
    found += [Way(name=f"strips of {rows}", plan="strip", tile=(rows, side)) for rows in (strip_rows, 2 * strip_rows)]
    walls: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as sessions:  # one for each way: it keeps what it opened

        def timed(session: Session, way: Way) -> float:
            summary = session.segment(ArraySource(image), ArraySink(), plan=way.plan, tile=way.tile)
            walls[way.name].append(summary.seconds.total)
            return summary.seconds.infer

        ways = {way.name: partial(timed, sessions.enter_context(gpu_session(deployed, binding)), way) for way in found}
        seconds = in_turn(ways, sizes().rounds, warm_up=1)
    return [
        {
            "network": name,
            "side": side,
            "plan": way.name,
            "tile": way.tile or side,
            "network s": statistics.median(seconds[way.name]),
            "in all s": statistics.median(walls[way.name]),
            "by one pass": median_ratio(seconds[way.name], seconds[ONE_PASS]),
            "rounds": spread(ratios(seconds[way.name], seconds[ONE_PASS])),
        }
        for way in found
    ]
