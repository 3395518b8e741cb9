"""What one GPU works with during runs of one shape: slots that are reused, and three streams.

::

    slot    pinned staging   device input   device output   pinned result
              (the pipeline's)     |              |               |
    copy in   ================>   in
    compute                       in =========> out
    copy out                                    out ==========> zone of responsibility, packed

The three streams run concurrently; events order them within a slot. A slot is reused only after the host has taken its
result, and so has waited for all three.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import prod
from typing import Protocol, TypeVar

import numpy as np

from exactile.contract import Contract
from exactile.cuda.protocol import Device, DeviceBuffer, Event, PinnedBuffer, Stream
from exactile.engines.device_partials import DevicePartials
from exactile.errors import DeviceError
from exactile.plan.prediction import Plan
from exactile.plan.tiles import TilePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBytes:
    """Bytes of one load of ``batch`` steps, of the largest shape that the plan has."""

    batch: int
    input_bytes: int
    output_bytes: int
    result_bytes: int
    told_bytes: int = 0
    """Bytes of further inputs of a load, besides the image: see ``exactile.engines.device_partials``."""

    @classmethod
    def of(cls, contract: Contract, plan: Plan, batch: int) -> LoadBytes:
        image, result = contract.image, contract.result
        pixel = max(1, result.channels) * np.dtype(result.dtype).itemsize
        zone = max(zor.length for zor in plan.y.zors) * max(zor.length for zor in plan.x.zors)
        return cls(
            batch=batch,
            input_bytes=batch * prod(plan.tile_shape) * image.channels * np.dtype(image.dtype).itemsize,
            output_bytes=batch * prod(plan.tile_output_shape) * pixel,
            result_bytes=batch * zone * pixel,
        )

    @classmethod
    def of_partials(cls, contract: Contract, plan: TilePlan, partials: DevicePartials) -> LoadBytes:
        """Return the bytes of a pass that finds statistics; tiles are computed one by one."""
        given = partials.numbers_at(plan.y.tile) * np.dtype(np.float32).itemsize
        image = contract.image
        return cls(
            batch=1,
            input_bytes=prod(plan.tile_shape) * image.channels * np.dtype(image.dtype).itemsize,
            output_bytes=given,
            result_bytes=given,
            told_bytes=partials.mask_bytes(plan.x.tile),
        )

    @property
    def device_bytes(self) -> int:
        """Bytes of one slot, on the GPU."""
        return self.input_bytes + self.output_bytes + self.told_bytes

    @property
    def pinned_bytes(self) -> int:
        """Bytes of one slot, on the host."""
        return self.result_bytes + self.told_bytes


class Closes(Protocol):
    """Anything that is owned."""

    def close(self) -> None: ...


Owned = TypeVar("Owned", bound=Closes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """When one piece of a load's work began and ended, on its stream."""

    begin: Event
    end: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Memory for one load in flight, and the events of its three pieces of work.

    ``told`` is its further input, on the host and on the device; None if there is none.
    """

    input: DeviceBuffer
    output: DeviceBuffer
    result: PinnedBuffer
    told: tuple[PinnedBuffer, DeviceBuffer] | None
    copied_in: Marks
    computed: Marks
    copied_out: Marks


class Ring:
    """Slots and streams on one device, whose context is current. Owns them.

    Raises DeviceMemoryError, and releases everything, if they do not fit.
    """

    def __init__(self, device: Device, sizes: LoadBytes, slots: int) -> None:
        self._owned = ExitStack()
        self._device = device
        try:
            self.copy_in, self.compute, self.copy_out = (self._own(device.stream()) for _ in range(3))
            self.base = self._own(device.event(timed=True))
            self.slots = tuple(self._slot(sizes) for _ in range(slots))
        except BaseException:
            self.close()
            raise

    def buffer(self, size_bytes: int) -> DeviceBuffer:
        """Return more device memory that lives as long as the ring."""
        return self._own(self._device.memory.allocate(size_bytes))

    def pinned(self, size_bytes: int) -> PinnedBuffer:
        """Return more pinned memory that lives as long as the ring."""
        return self._own(self._device.memory.pinned(size_bytes))

    @property
    def streams(self) -> Iterable[Stream]:
        return self.copy_in, self.compute, self.copy_out

    def synchronize(self) -> None:
        """Wait until all work on the streams is done."""
        for stream in self.streams:
            stream.synchronize()

    def settle(self) -> None:
        """Wait until nothing runs any more, whatever failed: memory that is in use must not be released."""
        for stream in self.streams:
            with suppress(DeviceError):
                try:
                    stream.synchronize()
                except DeviceError:  # a wait that fails for lack of memory says nothing about the work
                    stream.synchronize()

    def close(self) -> None:
        """Release everything, once its work is done; safe to call twice."""
        self._owned.close()

    def _own(self, thing: Owned) -> Owned:
        self._owned.callback(thing.close)
        return thing

    def _marks(self) -> Marks:
        return Marks(begin=self._own(self._device.event(timed=True)), end=self._own(self._device.event(timed=True)))

    def _slot(self, sizes: LoadBytes) -> Slot:
        return Slot(
            input=self.buffer(sizes.input_bytes),
            output=self.buffer(sizes.output_bytes),
            result=self.pinned(max(1, sizes.result_bytes)),
            told=(self.pinned(sizes.told_bytes), self.buffer(sizes.told_bytes)) if sizes.told_bytes else None,
            copied_in=self._marks(),
            computed=self._marks(),
            copied_out=self._marks(),
        )
