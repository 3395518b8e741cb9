"""The protocol between the pipeline and the destination of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from exactile.contract import LabelClass
from exactile.geometry import Box, Span
from exactile.georeference import Georeference


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSpec:
    """The whole result: ``(height, width)`` if ``channels`` is 0, else ``(channels, height, width)``.

    ``pixel_size_um`` is the height and width of one of its pixels in micrometres, ``labels`` the meaning of labels, if
    they are known; ``georeference`` its position on the ground. ``orientation`` is TIFF's tag: how viewers turn it.
    ``instances`` are the DICOM files of the slide that it was made from, ``model`` is what made it.
    """

    height: int
    width: int
    channels: int
    dtype: str
    pixel_size_um: tuple[float, float] | None = None
    labels: tuple[LabelClass, ...] = ()
    georeference: Georeference | None = None
    orientation: int = 1
    instances: tuple[str, ...] = ()
    model: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width), or (channels, height, width)."""
        return (self.channels, self.height, self.width) if self.channels else (self.height, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class WritePlan:
    """Every write a run will make: all boxes ``rows x columns``, row by row; together they partition the result."""

    rows: Sequence[Span]
    columns: Sequence[Span]


class Sink(Protocol):
    """Takes disjoint boxes in any order. The result appears under its name only in ``finish``."""

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """Return the most bytes of memory that this sink will hold for ``plan``."""

    def begin(self, spec: ResultSpec) -> None:
        """Check that the output may be written, and start it."""

    def write(self, box: Box, block: NDArray[Any]) -> None:
        """Take ``block``, the pixels of ``box`` ((H, W) or (C, H, W)); copied before this returns."""

    def finish(self) -> None:
        """Complete the output and give it its name. Raises SinkError if a pixel was never written."""

    def abort(self) -> None:
        """Leave nothing behind; safe to call at any time, also twice."""


@runtime_checkable
class SavingSink(Protocol):
    """A sink that can work with less memory than it prefers."""

    def spare_bytes(self, spec: ResultSpec) -> int:
        """Return the part of ``buffer_bytes`` that it can do without, for any plan."""

    def save(self, spec: ResultSpec, saved_bytes: int) -> None:
        """Use so many bytes less, at most ``spare_bytes``. To be called before ``begin``."""


@runtime_checkable
class StoredSink(Protocol):
    """A sink whose result is a file or folder: ``path``, which is replaced when the result is complete."""

    path: Path


@runtime_checkable
class ResumableSink(Sink, Protocol):
    """A sink that keeps the finished part of an interrupted run, for a later run to resume."""

    def unfinished(self) -> Mapping[str, Any] | None:
        """Return the description of an unfinished earlier run (``describe``, or what it had found before its result).

        None if nothing of one is left. Raises SinkError while another run is writing this output.
        """

    def describe(self, run: Mapping[str, Any], *, resume: bool) -> None:
        """Set what is run, as plain data, and whether an unfinished run is resumed. Call this before ``begin``.

        ``begin`` then raises ResumeError if the unfinished run was another one.
        """

    def is_done(self, box: Box) -> bool:
        """Return whether ``box`` was written by the earlier run and need not be written again."""

    @property
    def keeps(self) -> bool:
        """Whether ``abort`` leaves behind what a later run can resume."""


@runtime_checkable
class FindingsSink(Protocol):
    """A sink that also keeps what a run finds before the first box of its result, for a later run to resume."""

    def reserve(self, *, resume: bool) -> None:
        """Reserve the place of the output, before anything is found; remains of an earlier run are removed, unless
        resumed.

        Raises SinkError while another run writes it, OutputExistsError if an unfinished run is neither to be resumed
        nor to be overwritten.
        """

    def keep_found(self, found: Mapping[str, Any]) -> None:
        """Store ``found``, plain data, instead of what was stored before; ``unfinished`` returns it to a later run.

        Raises SinkError.
        """

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what an earlier run left."""
