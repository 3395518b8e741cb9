"""The seam between the pipeline and wherever results go."""

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
    """The whole result: ``(height, width)`` when ``channels`` is 0, else ``(channels, height, width)``.

    ``pixel_size_um`` is the height and width of one of its pixels in micrometres, ``labels`` what labels
    mean, where they are known; ``georeference`` where it lies on the ground. ``orientation`` is TIFF's tag: how viewers
    are to turn it. ``instances`` are the DICOM files of the slide that it was made of, ``model`` is what made it.
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
    """A sink that can do with less memory than it would like."""

    def spare_bytes(self, spec: ResultSpec) -> int:
        """Of ``buffer_bytes``, what it can do without, whatever the plan."""

    def save(self, spec: ResultSpec, saved_bytes: int) -> None:
        """Use so many bytes less, at most ``spare_bytes``. To be called before ``begin``."""


@runtime_checkable
class StoredSink(Protocol):
    """A sink whose result is a file or folder: ``path``, which is replaced when the result is complete."""

    path: Path


@runtime_checkable
class ResumableSink(Sink, Protocol):
    """A sink that keeps what is done when a run ends early, for a later run to go on."""

    def unfinished(self) -> Mapping[str, Any] | None:
        """Return what an earlier run that did not finish was (``describe``, or what it had found before its result).

        None where nothing of one is left.
        Raises SinkError while another run is writing this output.
        """

    def describe(self, run: Mapping[str, Any], *, resume: bool) -> None:
        """To be called before ``begin``: what is run, as plain data, and whether an unfinished run is resumed.

        ``begin`` then raises ResumeError where the unfinished run was another one.
        """

    def is_done(self, box: Box) -> bool:
        """Return whether ``box`` was written by the earlier run and need not be written again."""

    @property
    def keeps(self) -> bool:
        """Whether ``abort`` leaves behind what a later run can resume."""


@runtime_checkable
class FindingsSink(Protocol):
    """A sink that also keeps what a run finds out before the first box of its result, for a later run to go on."""

    def reserve(self, *, resume: bool) -> None:
        """Take the place of the output, before anything is found; what an earlier run left is removed, unless resumed.

        Raises SinkError while another run writes it, OutputExistsError where an unfinished run is neither to be gone on
        with nor to be overwritten.
        """

    def keep_found(self, found: Mapping[str, Any]) -> None:
        """Keep ``found``, plain data, in place of what was kept before; ``unfinished`` gives it to a later run.

        Raises SinkError.
        """

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of what an earlier run left."""
