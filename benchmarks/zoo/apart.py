"""Judge networks in another process: exporters may crash theirs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from benchmarks.zoo.judged import EXPORTED, Judged, judged
from benchmarks.zoo.networks import BY_NAME
from exactile_converters.torch_export import Exporter

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Apart:
    """One process for many networks; after a crash the next network gets a new one."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def judged(self, name: str, exporter: Exporter, folder: Path) -> Judged:
        """Judge the network ``name`` as ``judged`` does. Raises BrokenProcessPool if the process crashes after the
        export.
        """
        try:
            return self.run(_judged, name, exporter, folder)
        except BrokenProcessPool:
            if (folder / EXPORTED).exists():
                raise
            return Judged(verdict="not exported", cause="the exporter crashes")

    def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Call ``function`` in the process. Raises BrokenProcessPool if that crashes."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            return self._pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            self._pool = None
            raise


def _judged(name: str, exporter: Exporter, folder: Path) -> Judged:
    return judged(BY_NAME[name], exporter, folder)
