"""The protocols between the pipeline's threads and what computes: the CPU, or one or several GPUs."""

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
"""Returns a staging buffer to the free ones."""


@dataclass(frozen=True, slots=True)
class Load:
    """Steps that are computed together, their inputs one after the other in a staging buffer.

    The buffer is None for a step of nothing but background. Loads of a run are numbered in its plan's order.
    """

    steps: tuple[Step | StripStep, ...]
    staged: Array | None
    number: int = 0


class Ticket(Protocol):
    """A load in flight. Used by the writing thread."""

    def results(self) -> Sequence[Array]:
        """Wait; return the pixels of each step's zone of responsibility, (h, w) or (C, h, w), valid until ``release``.

        Raises EngineError.
        """

    def spans(self) -> Sequence[TimeSpan]:
        """Return what was done and when, once there are results."""

    def release(self) -> None:
        """Release the buffers of the results, which were taken."""


class Lane(Protocol):
    """Takes loads in order. Used by one thread."""

    def start(self, load: Load) -> Ticket:
        """Start ``load``; wait if too many are in flight. Raises EngineError, CancelledError."""

    def cancel(self) -> None:
        """Make a running and every later ``start`` stop soon; callable from any thread."""

    @property
    def opening_s(self) -> float:
        """Seconds that opening graphs took so far."""


class Compute(Protocol):
    """What computes one run of a plan."""

    @property
    def lanes(self) -> int:
        """Number of lanes that work concurrently, each in its own thread."""

    @property
    def batch(self) -> int:
        """Tiles per load."""

    def staging(self, loads: int) -> AbstractContextManager[Sequence[Array]]:
        """Return buffers for the inputs of a run of ``loads``; each holds one load. They live until the context is
        left.
        """

    def lane(self, index: int, *, free: Free, check: Callable[[], None]) -> AbstractContextManager[Lane]:
        """Wait until no other run has the lane, calling ``check``, which may raise; entered and left in its thread.

        ``free`` receives staging buffers that are no longer used. Raises EngineError.
        """

    def close(self) -> None:
        """Release everything after every thread of the run has ended; safe to call twice."""


@runtime_checkable
class ReadsAhead(Protocol):
    """A ``Compute`` that reads more than the image for a step."""

    def read_ahead(self, step: Step | StripStep) -> TimeSpan | None:
        """Read for ``step``, waiting if too much was read; return when that was, None if there is nothing to read.

        Called by the reading thread, in the order of the loads. Raises SinkError, CancelledError.
        """
