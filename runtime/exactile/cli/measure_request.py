"""The request of ``exactile measure``, the same for all images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import typer

from exactile.passes.fixed import FixedStatistics, check_takes_statistics
from exactile.passes.statistics_run import ImageOpening, MeasuredImage, StatisticsRun
from exactile.request.model_choice import Deploy, ModelChoice
from exactile.session import Session
from exactile.sources.address import shown_name
from exactile.sources.listing import describe_passed_over, find_images
from exactile.sources.open import open_source
from exactile.sources.protocol import Source


@dataclass(slots=True, kw_only=True)
class MeasureRequest:
    """Options as given, checked when they are used. ``sources`` are those of ``open_source``."""

    model: ModelChoice
    sources: Mapping[str, Any]
    nodata: float | None
    tile: tuple[int, int] | None
    memory_bytes: int | None
    threads: int | None
    _deploy: Deploy | None = None
    _sessions: dict[tuple[str, tuple[int, int] | None], Session] = field(default_factory=dict)

    def find(self, paths: Sequence[str], *, recursive: bool) -> tuple[Path | str, ...]:
        """Return the images; report skipped files on stderr. Raises SourceError."""
        found = find_images(paths, recursive=recursive)
        if found.passed_over:
            typer.echo(f"note: passed over: {describe_passed_over(found.passed_over)}", err=True)
        return found.images

    def run(self, images: Sequence[Path | str], progress: Callable[[int, int], None]) -> tuple[FixedStatistics, int]:
        """Return the statistics of ``images``, and the number of passes over each."""
        self._deploy = self.model.load()
        run = StatisticsRun(
            images=[ImageOpening(name=shown_name(image), open=partial(self._opened, image)) for image in images],
            tile=self.tile,
            progress=progress,
        )
        try:
            return run.run(), run.passes
        finally:
            for session in self._sessions.values():
                session.close()

    @contextmanager
    def _opened(self, image: Path | str) -> Iterator[MeasuredImage]:
        source = open_source(image, **self.sources)
        try:
            yield self._session(source).measured_image(source, self.nodata)
        finally:
            source.close()

    def _session(self, source: Source) -> Session:
        """Return one session for each sample type, and for each image size if the model is for one size."""
        assert self._deploy is not None
        dtype, size = str(source.dtype), (source.height, source.width)
        for known in ((dtype, size), (dtype, None)):
            kept = self._sessions.get(known)
            if kept is not None and not kept.lacks(size):
                return kept
        model = self._deploy(dtype, size, lambda _model: False)
        check_takes_statistics(model)
        session = Session(model, memory_bytes=self.memory_bytes, threads=self.threads)
        self._sessions[dtype, size if model.image_size is not None else None] = session
        return session
