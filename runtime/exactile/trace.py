"""A trace of a run, in the format of Chrome and Perfetto.

One process for each image, one track for each thread of the run and for each stream of a GPU; each piece of work with
its tile and zone of responsibility.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exactile.errors import OptionError, SinkError
from exactile.pipeline.run import Timed
from exactile.pipeline.timing import TimeSpan
from exactile.plan.strips import StripStep
from exactile.plan.tiles import Step
from exactile.sinks.files.whole_file import replace_file

MICROSECONDS = 1e6
SUFFIX = ".json"

_WORKS = ("read", "cpu", "copy in", "compute", "copy out", "write")
"""The order of the work; the tracks of a GPU, ``cuda:0 copy in`` and so on, are adjacent."""


def check_trace_target(path: Path) -> None:
    """Raise OptionError, SinkError if ``path`` cannot become a trace: only a trace may be overwritten."""
    if path.suffix.lower() != SUFFIX:
        raise OptionError(f"--trace takes the name of a {SUFFIX} file, got {path}")
    if path.is_dir():
        raise SinkError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise SinkError(f"cannot write {path}: the folder {path.parent} does not exist; make it, or write elsewhere")


class Trace:
    """Keeps all reported work, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images: list[str] = []
        self._events: list[tuple[int, TimeSpan, dict[str, Any]]] = []

    def of(self, image: str) -> Timed:
        """Return the callback that reports work for ``image``."""
        with self._lock:
            self._images.append(image)
            number = len(self._images)

        def timed(span: TimeSpan, steps: Sequence[Step]) -> None:
            described = _described(steps)
            with self._lock:
                self._events.append((number, span, described))

        return timed

    def write(self, path: str | Path) -> None:
        """Write all of it. Raises SinkError."""
        replace_file(Path(path), json.dumps(self.as_object()).encode())

    def as_object(self) -> dict[str, Any]:
        """Return the trace as plain data: complete events ("ph": "X"), times in microseconds from the first on."""
        with self._lock:
            images, events = list(self._images), list(self._events)
        begin_s = min((span.begin_s for _, span, _ in events), default=0.0)
        tracks = sorted({(number, span.track) for number, span, _ in events}, key=lambda t: (t[0], _place(t[1]), t[1]))
        numbers = {track: index for index, track in enumerate(tracks, 1)}
        found: list[dict[str, Any]] = [
            {"ph": "M", "name": "process_name", "pid": number, "args": {"name": image}}
            for number, image in enumerate(images, 1)
        ]
        for (number, track), index in numbers.items():
            place = {"pid": number, "tid": index}
            found.append({"ph": "M", "name": "thread_name", **place, "args": {"name": track}})
            found.append({"ph": "M", "name": "thread_sort_index", **place, "args": {"sort_index": index}})
        found += [
            {
                "ph": "X",
                "name": span.work,
                "pid": number,
                "tid": numbers[number, span.track],
                "ts": (span.begin_s - begin_s) * MICROSECONDS,
                "dur": span.seconds * MICROSECONDS,
                "args": args,
            }
            for number, span, args in sorted(events, key=lambda event: event[1].begin_s)
        ]
        return {"displayTimeUnit": "ms", "traceEvents": found}


def _place(track: str) -> tuple[bool, str, int]:
    """Return the sort key of a track."""
    device, _, work = track.partition(" ") if track.startswith("cuda:") else ("", "", track)
    return track == "write", device, _WORKS.index(work) if work in _WORKS else len(_WORKS)


def _described(steps: Sequence[Step]) -> dict[str, Any]:
    """Return boxes as [top, bottom, left, right]: of the image for tiles, of the result for zones."""
    first = steps[0]
    found: dict[str, Any] = {
        "tile": [first.tile.y.start, first.tile.y.stop, first.tile.x.start, first.tile.x.stop],
        "zone": [first.zor.y.start, first.zor.y.stop, first.zor.x.start, first.zor.x.stop],
    }
    if len(steps) > 1:
        found["tiles"] = len(steps)
    if isinstance(first, StripStep):
        found |= {"strip": first.place.role, "band": first.place.band}
    return found
