"""One GPU: copies in, inferences and copies out of different loads overlap, ordered by events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from exactile.contract import Contract
from exactile.contract.built_engine import EngineRole
from exactile.cuda.protocol import Bytes, Device, Stream, Window
from exactile.engines.device_network import DeviceNetwork
from exactile.engines.device_partials import DevicePartials
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.channel import Channel
from exactile.pipeline.compute import Array, Free, Load
from exactile.pipeline.device_carries import DeviceCarries
from exactile.pipeline.device_replays import Replays
from exactile.pipeline.device_ring import Marks, Ring, Slot
from exactile.pipeline.timing import INFER, TimeSpan
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlace, StripStep
from exactile.plan.tiles import Step, TilePlan


class Networks(Protocol):
    """The source of a lane's network; one is open at a time."""

    def take(self, role: EngineRole, rows: int) -> DeviceNetwork:
        """Return the network for ``rows`` image rows; another one is closed first, once its work is done."""

    @property
    def opening_s(self) -> float:
        """Seconds that opening took so far."""


@dataclass(slots=True, kw_only=True)
class DeviceLane:
    """Implements ``Lane`` on one device; the device's context is current in the lane's thread.

    The station lends everything that it works with; ``constants`` are device addresses of further inputs. With
    ``partials`` results are partial statistics of zones, float64.
    """

    device: Device
    ring: Ring
    networks: Networks
    replays: Replays
    carries: DeviceCarries | None
    constants: Mapping[str, int]
    plan: Plan
    contract: Contract
    cancellation: Cancellation
    free: Free
    partials: DevicePartials | None = None
    _base_s: float = 0.0
    _opened_before_s: float = 0.0
    _slots: Channel[Slot] | None = None

    def __post_init__(self) -> None:
        self._slots = Channel(len(self.ring.slots), self.cancellation)
        for slot in self.ring.slots:
            self._slots.put(slot)
        self._opened_before_s = self.networks.opening_s
        self.ring.compute.record(self.ring.base)
        self.ring.base.synchronize()
        self._base_s = time.perf_counter()

    @property
    def opening_s(self) -> float:
        return self.networks.opening_s - self._opened_before_s

    def start(self, load: Load) -> DeviceTicket:
        """Put ``load`` on the streams; wait for a slot, not for the work."""
        assert self._slots is not None
        assert load.staged is not None
        slot = self._slots.get()
        first, ring = load.steps[0], self.ring
        rows = first.tile.y.length
        network = self.networks.take(first.place.role if isinstance(first, StripStep) else "tile", rows)
        with _Timed(ring.copy_in, slot.copied_in):
            ring.copy_in.copy_in(slot.input, self._used(load))
            self._tell(slot, first)
        ring.compute.wait(slot.copied_in.end)
        with _Timed(ring.compute, slot.computed):
            self.replays.enqueue(network, self._addresses(slot, first), rows)
        ring.copy_out.wait(slot.computed.end)
        with _Timed(ring.copy_out, slot.copied_out):
            for target, window in self._copies_out(slot, load):
                ring.copy_out.copy_out(target, slot.output, window)
        return DeviceTicket(self, slot, load)

    def cancel(self) -> None:
        """Do nothing: the cancellation wakes whoever waits for a slot, and work on the streams ends soon."""

    def finish(self, slot: Slot, load: Load) -> None:
        """Return a slot whose results the host has taken."""
        assert self._slots is not None
        assert load.staged is not None
        self.free(load.staged)
        self._slots.put(slot)

    def drain(self) -> None:
        """Wait until everything is done on the device."""
        self.ring.synchronize()

    def results(self, slot: Slot, load: Load) -> list[Array]:
        """Return the zones of a load whose copies out are done."""
        if self.partials is not None:
            return [self._partials_of(self.partials, slot, load.steps[0])]
        found, start = [], 0
        for step in load.steps:
            shape = self._zone_shape(step)
            size = prod(shape) * self._itemsize
            found.append(slot.result.array[start : start + size].view(self.contract.result.dtype).reshape(shape))
            start += size
        return found

    def spans(self, slot: Slot) -> list[TimeSpan]:
        """Return when the three pieces of a load's work were done, by the device's clock."""
        name = f"cuda:{self.device.info.ordinal}"
        works = (("copy in", slot.copied_in), (INFER, slot.computed), ("copy out", slot.copied_out))
        with self.device.current():
            return [
                TimeSpan(
                    f"{name} {'compute' if work == INFER else work}",
                    work,
                    self._base_s + marks.begin.seconds_since(self.ring.base),
                    self._base_s + marks.end.seconds_since(self.ring.base),
                )
                for work, marks in works
            ]

    def _tell(self, slot: Slot, step: Step) -> None:
        """Copy in what a load needs besides the image; the slot's earlier work is done."""
        if self.partials is not None and slot.told is not None:
            pinned, buffer = slot.told
            assert isinstance(self.plan, TilePlan)
            self.partials.tell(self.plan, step, pinned.array)
            self.ring.copy_in.copy_in(buffer, pinned.array)

    def _partials_of(self, partials: DevicePartials, slot: Slot, step: Step) -> Array:
        assert isinstance(self.plan, TilePlan)
        numbers = partials.numbers_at(self.plan.y.tile)
        return partials.of_zone(self.plan, step, slot.result.array[: numbers * 4].view(np.float32))

    @property
    def _itemsize(self) -> int:
        return np.dtype(self.contract.result.dtype).itemsize

    def _used(self, load: Load) -> Bytes:
        """Return the bytes of a staging buffer that hold the steps' inputs."""
        assert load.staged is not None
        pixels = sum(prod(step.tile.shape) for step in load.steps)
        used: Bytes = load.staged[: pixels * self.contract.image.channels].view(np.uint8)
        return used

    def _addresses(self, slot: Slot, step: Step) -> dict[str, int]:
        place = step.place if isinstance(step, StripStep) else None
        return addresses(self.contract, slot, self.carries, place, {**self.constants, **self._masks(slot)})

    def _masks(self, slot: Slot) -> Mapping[str, int]:
        return masks_at(slot, self.partials, self.plan)

    def _zone_shape(self, step: Step) -> tuple[int, ...]:
        channels = self.contract.result.channels
        return (*((channels,) if channels else ()), *step.zor.shape)

    def _copies_out(self, slot: Slot, load: Load) -> Iterator[tuple[Bytes, Window]]:
        """Yield each plane of each zone: its target, and its window in the device's output."""
        if self.partials is not None:
            size = self.partials.numbers_at(self.plan.y.tile) * 4
            yield slot.result.array[:size], Window(offset_bytes=0, rows=1, row_bytes=size, pitch_bytes=size)
            return
        itemsize, start = self._itemsize, 0
        for place, step in enumerate(load.steps):
            height, width = self.plan.output_shape(step)
            zone = step.crop
            size = zone.area * itemsize
            for plane in range(max(1, self.contract.result.channels) if size else 0):
                first = (place * max(1, self.contract.result.channels) + plane) * height + zone.y.start
                yield (
                    slot.result.array[start : start + size],
                    Window(
                        offset_bytes=(first * width + zone.x.start) * itemsize,
                        rows=zone.y.length,
                        row_bytes=zone.x.length * itemsize,
                        pitch_bytes=width * itemsize,
                    ),
                )
                start += size


@dataclass(frozen=True, slots=True)
class _Timed:
    """Record when the work put on ``stream`` inside begins and ends."""

    stream: Stream
    marks: Marks

    def __enter__(self) -> None:
        self.stream.record(self.marks.begin)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stream.record(self.marks.end)


@dataclass(frozen=True, slots=True)
class DeviceTicket:
    """Implements ``Ticket``: waits for the load's last event, in the thread that takes the results."""

    lane: DeviceLane
    slot: Slot
    load: Load

    def results(self) -> Sequence[Array]:
        with self.lane.device.current():
            self.slot.copied_out.end.synchronize()
        return self.lane.results(self.slot, self.load)

    def spans(self) -> Sequence[TimeSpan]:
        return self.lane.spans(self.slot)

    def release(self) -> None:
        self.lane.finish(self.slot, self.load)


def masks_at(slot: Slot, partials: DevicePartials | None, plan: Plan) -> dict[str, int]:
    """Return the addresses of the masks of columns for the graph of a pass."""
    if partials is None or slot.told is None:
        return {}
    start = slot.told[1].address
    return {name: start + offset for name, offset in partials.offsets_at(plan.x.tile).items()}


def addresses(
    contract: Contract,
    slot: Slot,
    carries: DeviceCarries | None,
    place: StripPlace | None,
    constants: Mapping[str, int],
) -> dict[str, int]:
    """Return the addresses of a network's inputs and outputs; the carries of ``place`` are then swapped."""
    found = {contract.image.name: slot.input.address, contract.result.name: slot.output.address, **constants}
    if place is not None and carries is not None:
        found |= carries.addresses(place.role, place.band)
    return found
