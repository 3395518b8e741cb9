"""What the passes before the result have found so far, so that an interrupted run need not find it again."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel, Level
from exactile.passes.merge import Merged

KEEP_SECONDS = 5.0
"""Seconds between writes: a killed process may lose this much of a pass."""

REST_SHARE = 50
"""Writing takes at most one second in so many, however slow the disk is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunLevel:
    """A level in progress: ``state`` is that of ``Merged``, (S,), after the first ``zones`` in the plan's order."""

    zones: int
    state: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """``statistics`` of finished levels, by graph input; the first unfinished level may be ``begun``.

    ``tiles`` are those of all passes, (height, width); empty if they are not known.
    """

    statistics: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    tiles: tuple[tuple[int, int], ...] = ()
    begun: BegunLevel | None = None

    def with_tile(self, index: int, tile: tuple[int, int]) -> Found:
        """Return whether pass ``index`` runs in this run."""
        return replace(self, tiles=(*self.tiles[:index], tile, *self.tiles[index + 1 :]))


NOTHING = Found()


class Keeping:
    """Pass findings to ``write`` at intervals; ``write`` is None if nothing is kept.

    Finding began ``seconds`` ago. Used by one thread at a time.
    """

    def __init__(self, write: Callable[[Found], None] | None = None, *, seconds: float = 0) -> None:
        self._write = write
        self._newest: Callable[[], Found] | None = None
        self._next_s = time.monotonic() + KEEP_SECONDS - seconds

    def note(self, newest: Callable[[], Found]) -> None:
        """Note that more was found; ``newest`` returns it when it is written. Raises SinkError."""
        self._newest = newest
        if time.monotonic() >= self._next_s:
            self.flush()

    def flush(self) -> None:
        """Write the last note, unless it was written. Raises SinkError."""
        if self._write is None or self._newest is None:
            return
        begin = time.monotonic()
        self._write(self._newest())
        self._newest = None
        end = time.monotonic()
        self._next_s = end + max(KEEP_SECONDS, (end - begin) * REST_SHARE)

    def drop(self) -> None:
        """Drop the last note, which cannot be relied on."""
        self._newest = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelKeeping:
    """Note the progress of pass ``index``, whose partial statistics become ``merged``; ``found`` is what is known."""

    keeping: Keeping
    found: Found
    index: int
    merged: Merged

    def note(self, tile: tuple[int, int], zones: Callable[[], int]) -> None:
        """Note that so many zones of a plan with this tile are merged. Raises SinkError."""

        def newest() -> Found:
            begun = BegunLevel(zones=zones(), state=self.merged.state())
            return replace(self.found.with_tile(self.index, tile), begun=begun)

        self.keeping.note(newest)


def is_finished(level: Level, known: Container[str]) -> bool:
    """Return whether all statistics of ``level`` are among those ``known``, by graph input."""
    return all(name in known for statistic in level.statistics for name in statistic.inputs)


def passes_to_run(model: DeployedModel, known: Container[str]) -> tuple[bool, ...]:
    """Return for each pass whether it finds what is not ``known``, or makes maps for one that runs, or
    for the result.
    """
    wanted = {one.output for one in model.reads}
    runs: list[bool] = []
    for level in reversed(model.levels):
        run = not is_finished(level, known) or any(one.output in wanted for one in level.model.writes)
        if run:
            wanted |= {one.output for one in level.model.reads}
        runs.append(run)
    return tuple(reversed(runs))
