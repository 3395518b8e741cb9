"""The base of sinks that write one file: the life of the file."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from os import PathLike
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.geometry import Box
from exactile.sinks.blocks import as_planes, check_spec
from exactile.sinks.coverage import Coverage
from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sinks.protocol import ResultSpec, WritePlan


class Part(Protocol):
    """An output without its final name."""

    def publish(self) -> None:
        """Flush it to the disk and give it its name. After a failure, ``discard`` still has to be called."""

    def discard(self) -> None:
        """Remove what was written so far; safe to call twice and after ``publish``."""


PartT = TypeVar("PartT", bound=Part)


class FileSink(ABC, Generic[PartT]):
    """begin -> write ... -> finish or abort, under one lock, for an output that appears only when complete.

    After a failed ``write`` or ``finish`` nothing but ``abort`` is possible: a lost block must never be published.
    """

    def __init__(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._lock = threading.Lock()
        self._spec: ResultSpec | None = None
        self._part: PartT | None = None
        self._coverage: Coverage | None = None
        self._failure: BaseException | None = None

    @abstractmethod
    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """Return the most bytes of memory that this sink will hold for ``plan``."""

    @abstractmethod
    def _start(self, part: PartT, spec: ResultSpec) -> None:
        """Write what comes before the pixels."""

    @abstractmethod
    def _put(self, part: PartT, box: Box, planes: NDArray[Any]) -> None:
        """Take ``planes``, (C, H, W), the pixels of ``box``, checked, not empty; copied before this returns."""

    @abstractmethod
    def _complete(self, part: PartT) -> None:
        """Write what is still held; every pixel has been put."""

    @abstractmethod
    def _release(self) -> None:
        """Stop threads and drop buffers; called after success, failure and abort."""

    @abstractmethod
    def _open_part(self, spec: ResultSpec) -> PartT:
        """Return the output until it is complete. Raises SinkError if it may not be written."""

    def _drop(self, part: PartT) -> None:
        """Remove the incomplete output; nothing more is written."""
        part.discard()

    def begin(self, spec: ResultSpec) -> None:
        """Check that the output may be written, and start it under a temporary name beside it.

        Raises OutputExistsError, and SinkError for any other reason; then nothing is left behind.
        """
        with self._lock:
            if self._spec is not None:
                raise SinkError(f"{self.path}: this sink was used before: use a new one for every run")
            check_spec(spec)
            self._part = self._open_part(spec)
            try:
                self._spec = spec
                self._coverage = Coverage(spec.height, spec.width)
                with os_errors_as_sink_errors(self.path):
                    self._start(self._part, spec)
            except BaseException:
                self._discard()
                raise

    def write(self, box: Box, block: NDArray[Any]) -> None:
        """Take ``block``, the pixels of ``box`` ((H, W) or (C, H, W)); copied before this returns.

        Raises SinkError if it does not fit, was written before, or if this or an earlier block cannot be stored.
        """
        with self._lock:
            part, spec, coverage = self._open_state()
            try:
                planes = as_planes(spec, box, block)
                coverage.add(box)
                if box.area:
                    self._put(part, box, planes)
            except BaseException as error:
                self._failure = error
                raise

    def finish(self) -> None:
        """Complete the output and give it its name.

        Raises SinkError if a pixel was never written or the file cannot be completed, OutputExistsError if the
        output appeared during the run; ``abort`` must follow.
        """
        with self._lock:
            part, _, coverage = self._open_state()
            try:
                coverage.check_complete()
                with os_errors_as_sink_errors(self.path):
                    self._complete(part)
                part.publish()
            except BaseException as error:
                self._failure = error
                raise
            self._discard()  # of a published part: releases threads and buffers only

    def abort(self) -> None:
        """Leave nothing behind; safe at any time, from any thread, twice, and without effect after ``finish``."""
        with self._lock:
            self._discard()

    def _open_state(self) -> tuple[PartT, ResultSpec, Coverage]:
        if self._part is None or self._spec is None or self._coverage is None:
            raise SinkError(f"{self.path}: the sink is not open (never begun, finished or aborted)")
        if self._failure is not None:
            raise SinkError(f"{self.path}: an earlier write failed: {self._failure}") from self._failure
        return self._part, self._spec, self._coverage

    def _discard(self) -> None:
        if self._part is None:
            return
        try:
            self._release()
        finally:
            self._drop(self._part)
            self._part = self._coverage = None
