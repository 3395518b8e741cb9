"""Where the time of a run goes: busy seconds of each track of its trace, and how much of them overlap."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

COMPUTE = "compute"


def busy_seconds(trace: dict[str, Any]) -> dict[str, float]:
    """Return busy seconds of each track (reader, streams of the GPU, writer), from ``Trace.as_object``."""
    names, busy = {}, defaultdict(float)
    for event in trace["traceEvents"]:
        if event["name"] == "thread_name":
            names[event["tid"]] = event["args"]["name"]
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            busy[names[event["tid"]]] += event["dur"] / 1e6
    return dict(busy)


def wall_seconds(trace: dict[str, Any]) -> float:
    """Return the seconds from the first piece of work to the end of the last."""
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    begin = min(event["ts"] for event in events)
    return float(max(event["ts"] + event["dur"] for event in events) - begin) / 1e6


def shares(trace: dict[str, Any]) -> dict[str, Any]:
    """Return columns of a table: the busiest track, wall time by its busy time, and every track's busy share."""
    busy, wall = busy_seconds(trace), wall_seconds(trace)
    busiest = max(busy, key=lambda track: busy[track])
    engine = sum(seconds for track, seconds in busy.items() if track.endswith(COMPUTE))
    return {
        "busiest": busiest,
        "wall / busiest": wall / busy[busiest],
        "engine busy": engine / wall,
        "busy s": {track: round(seconds, 3) for track, seconds in busy.items()},
    }
