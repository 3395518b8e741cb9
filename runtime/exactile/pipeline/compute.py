"""The seam between the pipeline's threads and what computes: the CPU, or one or several GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from exactile.pipeline.timing import TimeSpan
from exactile.plan.strips import StripStep
from exactile.plan.tiles import Step

Array = NDArray[Any]
Free = Callable[[Array], None]
"""Gives a staging buffer back."""


@dataclass(frozen=True, slots=True)
class Load:
    """Steps that go in together, their inputs one after the other in a staging buffer.

    The buffer is None where there is nothing but background. Loads of a run are numbered in its plan's order.
    """

    steps: tuple[Step | StripStep, ...]
    staged: Array | None
    number: int = 0


class Ticket(Protocol):
    """A load under way. Used by the thread that writes."""

    def results(self) -> Sequence[Array]:
        """Wait; the pixels of each step's zone of responsibility, (h, w) or (C, h, w), valid until ``release``.

        Raises EngineError.
        """

    def spans(self) -> Sequence[TimeSpan]:
        """Return what was done when, once there are results."""

    def release(self) -> None:
        """The results were taken; what held them goes round."""


class Lane(Protocol):
    """Takes loads in order. Used by one thread."""

    def start(self, load: Load) -> Ticket:
        """Begin with ``load``; waits where too many are under way. Raises EngineError, CancelledError."""

    def cancel(self) -> None:
        """Make a running and every later ``start`` stop soon; callable from any thread."""

    @property
    def opening_s(self) -> float:
        """Seconds that opening graphs took so far."""


class Compute(Protocol):
    """What computes one run of a plan."""

    @property
    def lanes(self) -> int:
        """How many work side by side, each in a thread of its own."""

    @property
    def batch(self) -> int:
        """Tiles that go in together."""

    def staging(self, loads: int) -> AbstractContextManager[Sequence[Array]]:
        """Return buffers for the inputs of a run of ``loads``; each holds one load. They live until left."""

    def lane(self, index: int, *, free: Free, check: Callable[[], None]) -> AbstractContextManager[Lane]:
        """Wait until no other run has the lane, calling ``check``, which may raise; entered and left in its thread.

        ``free`` gets staging buffers back. Raises EngineError.
        """

    def close(self) -> None:
        """Every thread of the run has ended; safe to call twice."""


@runtime_checkable
class ReadsAhead(Protocol):
    """A ``Compute`` that reads more than the image for a step."""

    def read_ahead(self, step: Step | StripStep) -> TimeSpan | None:
        """Read for ``step``, waiting where too much was read; when that was done, None where there is nothing to read.

        Called by the thread that reads, in the order of the loads. Raises SinkError, CancelledError.
        """
