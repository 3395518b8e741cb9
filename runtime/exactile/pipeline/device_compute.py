"""Compute on GPUs: one lane each, with staging buffers that every GPU copies from directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import numpy as np

from exactile.contract import Contract
from exactile.cuda.protocol import Device
from exactile.errors import ExactileError
from exactile.pipeline.compute import Array, Free
from exactile.pipeline.device_lane import DeviceLane
from exactile.pipeline.device_staging import Staging
from exactile.plan.prediction import Plan

BEING_STAGED = 2
"""Buffers in addition to those of loads in flight on a GPU: one that is read into, and one that waits."""


class Post(Protocol):
    """A GPU that belongs to one run at a time."""

    @property
    def device(self) -> Device: ...

    def take(self, check: Callable[[], None]) -> None:
        """Wait until no other run has it."""

    def give_back(self) -> None: ...

    def drop(self) -> None:
        """Release everything that was opened."""


Open = Callable[[int, Free], DeviceLane]
"""Creates the lane of a post that was taken, its device's context current."""


@dataclass(slots=True, kw_only=True)
class DeviceCompute:
    """Implements ``Compute`` with a lane for each of ``posts``, with ``slots`` loads of ``batch`` steps in flight on
    each.
    """

    plan: Plan
    contract: Contract
    posts: Sequence[Post]
    open: Open
    pinned: Staging
    slots: int
    batch: int
    _taken: list[Post] = field(default_factory=list)
    _broken: list[Post] = field(default_factory=list)

    @property
    def lanes(self) -> int:
        return len(self.posts)

    @contextmanager
    def staging(self, loads: int) -> Iterator[Sequence[Array]]:
        """Yield pinned buffers. They are copied from until the last lane is left."""
        image = self.contract.image
        size = self.batch * prod(self.plan.tile_shape) * image.channels * np.dtype(image.dtype).itemsize
        count = min(loads, staging_buffers(len(self.posts), self.slots))
        with self.pinned.buffers(count, size) as buffers:
            yield [buffer.view(image.dtype) for buffer in buffers]

    @contextmanager
    def lane(self, index: int, *, free: Free, check: Callable[[], None]) -> Iterator[DeviceLane]:
        post = self.posts[index]
        post.take(check)
        self._taken.append(post)
        with post.device.current():
            lane = None
            try:
                lane = self.open(index, free)
                yield lane
                lane.drain()
            except BaseException:
                # What is on the streams may still read and write memory that is about to be released.
                self._broken.append(post)
                if lane is not None:
                    lane.ring.settle()
                raise

    def close(self) -> None:
        """Return the GPUs; release what was opened on one that failed."""
        taken, self._taken = self._taken, []
        broken, self._broken = self._broken, []
        for post in taken:
            try:
                if post in broken:
                    with suppress(ExactileError):
                        post.drop()
            finally:
                post.give_back()


def staging_buffers(lanes: int, slots: int) -> int:
    """Return the number of staging buffers of a run that is long enough."""
    return lanes * slots + BEING_STAGED
