"""Find the statistics of the whole image that a network takes, over all pixels of many images together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import CancelledError, ExactileError, OptionError, PlanError, SourceError
from exactile.image_statistics.measure import Normalizers, constants_of
from exactile.passes.fixed import FixedStatistics, check_takes_statistics
from exactile.passes.merge import Merged
from exactile.passes.run import Passes
from exactile.pipeline.cancellation import Cancellation
from exactile.plan.tiles import AxisDomain
from exactile.planning import Planner, Wish
from exactile.processors.protocol import Processor
from exactile.sources.protocol import Identity, Source, StoredSource

Progress = Callable[[int, int], None]
"""Called with the image pixels done in all passes over all images, and their total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredImage:
    """An image for statistics, and what it needs of a session. ``normalizers`` finds its own."""

    model: DeployedModel
    planner: Planner
    processor: Processor
    source: Source
    normalizers: Callable[[], Normalizers | None]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.source.height, self.source.width

    @property
    def domain(self) -> tuple[int, int]:
        """The size that the network runs over, (height, width)."""
        return _domain(self.model, self.size)

    def passes(
        self,
        wish: Wish,
        cancellation: Cancellation | None = None,
        progress: Progress = lambda _done, _total: None,
    ) -> Passes:
        """Return the passes of this image."""
        return Passes(
            model=self.model,
            planner=self.planner,
            processor=self.processor,
            source=self.source,
            wish=wish,
            cancellation=cancellation or Cancellation(),
            progress=progress,
        )

    def check_size(self) -> None:
        """Raise PlanError if passes would run over another part of the image than the result's."""
        for level in self.model.levels:
            own = _domain(level.model, self.size)
            if own != self.domain:
                raise PlanError(
                    f"the image is too small, {self.size[0]} x {self.size[1]} pixels: passes for its statistics run "
                    f"over {own[0]} x {own[1]}, and the network over {self.domain[0]} x {self.domain[1]}"
                )


def _domain(model: DeployedModel, size: tuple[int, int]) -> tuple[int, int]:
    geometry = model.contract.geometry
    y, x = (AxisDomain.of(axis, px, "model").size for axis, px in zip((geometry.y, geometry.x), size, strict=True))
    return y, x


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOpening:
    """An image by ``name``, which ``open`` opens again for each pass over it."""

    name: str
    open: Callable[[], AbstractContextManager[MeasuredImage]]


def images_of(sources: Sequence[Source], measured: Callable[[Source], MeasuredImage]) -> list[ImageOpening]:
    """Return open ``sources`` as images, by the names of their files or by number; passes leave them open."""
    return [
        ImageOpening(
            name=str(source.stored_path) if isinstance(source, StoredSource) else f"image {number}",
            open=lambda source=source: nullcontext(measured(source)),  # type: ignore[misc]
        )
        for number, source in enumerate(sources, 1)
    ]


@dataclass(slots=True, kw_only=True)
class StatisticsRun:
    """A run that measures ``images``. Call ``run`` once; ``passes`` is then the number of passes over each.

    Statistics of a level are those of all images, before those of the next level are found. ``tile``, (height, width),
    is that of the passes (default: by cost). The same tiles in the same order give the same bits.
    """

    images: Sequence[ImageOpening]
    tile: tuple[int, int] | None = None
    progress: Progress = lambda _done, _total: None
    cancellation: Cancellation = field(default_factory=Cancellation)
    passes: int = 0
    _pixels: int = 0
    _done: int = 0
    _identities: list[Identity] = field(default_factory=list)
    _normalizers: dict[int, Normalizers | None] = field(default_factory=dict)

    def run(self) -> FixedStatistics:
        """Find the statistics. Raises OptionError, ChannelError, PlanError, BudgetError, SourceError, EngineError,
        CancelledError.
        """
        first = self._check()
        found: dict[str, NDArray[np.float32]] = {}
        self.passes = len(first.levels)
        for number, level in enumerate(first.levels):
            merged = Merged(level.statistics)
            for index in range(len(self.images)):
                self._add(index, number, merged, found)
            found.update(merged.values())
        return FixedStatistics(
            values=found,
            model=first.contract.model_name,
            belongs_to=first.statistics_key,
            images=tuple(image.name for image in self.images),
            pixels=self._pixels,
        )

    def _check(self) -> DeployedModel:
        """Return the model of the first image; all images are checked before the first pass."""
        if not self.images:
            raise OptionError("statistics are those of images; give one or several")
        first: DeployedModel | None = None
        dtype = ""
        for index in range(len(self.images)):
            with self._opened(index) as image:
                dtype = dtype or str(image.source.dtype)
                if image.source.dtype != dtype:
                    raise OptionError(
                        f"{self.images[index].name} holds {image.source.dtype} samples and {self.images[0].name} "
                        f"{dtype}; statistics are those of images of one type"
                    )
                check_takes_statistics(image.model)
                image.planner.check_source(image.source)
                image.check_size()
                first = first or image.model
                _check_same(first, image.model)
                self._identities.append(image.source.identity())
                self._pixels += image.source.height * image.source.width
        assert first is not None
        return first

    def _add(self, index: int, number: int, merged: Merged, found: Mapping[str, NDArray[Any]]) -> None:
        with self._opened(index) as image:
            if image.source.identity() != self._identities[index]:
                raise SourceError("the image changed while it was measured; measure again")
            if index not in self._normalizers:
                self._normalizers[index] = image.normalizers()
            constants = constants_of(image.model.contract.image, self._normalizers[index])
            before = self._done
            wish = Wish(plan="tile", tile=self.tile)
            passes = image.passes(wish, self.cancellation, lambda done, _total: self._advance(before + done))
            with closing(passes):
                passes.run_level(image.model.levels[number], merged, image.domain, {**constants, **found})
            self._done = before + image.source.height * image.source.width

    def _advance(self, done: int) -> None:
        self.progress(done, self.passes * self._pixels)

    @contextmanager
    def _opened(self, index: int) -> Iterator[MeasuredImage]:
        """Open an image; errors include its name."""
        image = self.images[index]
        try:
            with image.open() as opened:
                yield opened
        except (CancelledError, OptionError):
            raise
        except ExactileError as error:
            if image.name in str(error):
                raise
            raise type(error)(f"{image.name}: {error}") from error


def _check_same(first: DeployedModel, other: DeployedModel) -> None:
    """Raise OptionError if two images have models whose statistics are not the same."""
    statistics = [[level.statistics for level in model.levels] for model in (first, other)]
    if first.statistics_key != other.statistics_key or statistics[0] != statistics[1]:
        raise OptionError(
            f"{other.contract.model_name} takes other statistics at this size than at that of the first image; "
            f"measure images of each size separately"
        )
