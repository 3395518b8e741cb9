"""One GPU of a session: ring, network and carries, kept from run to run while they are of the same shape."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from exactile.contract import DeployedModel
from exactile.contract.built_engine import EngineRole
from exactile.cuda.protocol import Device
from exactile.engines.device_network import DeviceNetwork
from exactile.engines.device_partials import DevicePartials
from exactile.engines.families import EngineFamily
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.compute import Free
from exactile.pipeline.device_carries import DeviceCarries
from exactile.pipeline.device_lane import DeviceLane, addresses, masks_at
from exactile.pipeline.device_replays import Replays, replays_of
from exactile.pipeline.device_ring import LoadBytes, Ring
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlace, StripPlan
from exactile.plan.tiles import TilePlan
from exactile.processors.protocol import Constants

SLOTS = 4
"""Loads in flight on one GPU: copied in, computed, copied out, and taken by the sink."""

_WAIT_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceWork:
    """The work of a station: run the graphs of ``model``; those of the ``level``-th pass give ``partials``.

    ``statistics`` of the whole image that graphs may take: bytes by the name of the input.
    """

    model: DeployedModel
    family: EngineFamily
    statistics: Mapping[str, int]
    level: int | None = None
    partials: DevicePartials | None = None


class Station:
    """Owns what it opens on ``device``, not the device. One run has it at a time.

    Its ``work`` is that of the result, unless another is given. The ``bands`` of a strip plan that belong to this
    station are every ``of``-th, from ``index`` on.
    """

    def __init__(self, model: DeployedModel, device: Device, family: EngineFamily, *, index: int, of: int) -> None:
        self.device = device
        self._work = DeviceWork(model=model, family=family, statistics=statistic_bytes(model))
        self._index, self._of = index, of
        self._lock = threading.Lock()
        self._key: Hashable = None
        self._opened: _Opened | None = None

    def ready(self, plan: Plan, batch: int, cancellation: Cancellation, work: DeviceWork | None = None) -> None:
        """Open what ``plan`` needs and run each network once, so that memory runs out here or not at all.

        Waits for a run that has the station, unless it works on the same shape. Raises DeviceMemoryError.
        """
        work = work or self._work
        if self._key == (work.level, _shape(plan, batch)):
            return
        self.take(cancellation.check)
        try:
            with self.device.current():
                self._open(plan, batch, work)
        finally:
            self.give_back()

    def take(self, check: Callable[[], None]) -> None:
        """Wait until no other run has the station; ``check`` is called meanwhile, and may raise."""
        while not self._lock.acquire(timeout=_WAIT_S):
            check()

    def give_back(self) -> None:
        """Return the station, from any thread, after ``take``."""
        self._lock.release()

    def lane(
        self,
        plan: Plan,
        batch: int,
        constants: Constants,
        cancellation: Cancellation,
        free: Free,
        work: DeviceWork | None = None,
    ) -> DeviceLane:
        """Create a lane for one run, after ``take``, with the device's context current."""
        work = work or self._work
        if self._key != (work.level, _shape(plan, batch)):  # another run was first
            self._open(plan, batch, work)
        assert self._opened is not None
        return self._opened.lane(plan, constants, cancellation, free)

    def let_go(self) -> None:
        """Release what is kept for the next run; not what a run uses."""
        if self._lock.acquire(blocking=False):
            try:
                self.drop()
            finally:
                self._lock.release()

    def drop(self) -> None:
        """Release everything, as after a failure; called by the run that holds it, or when it is no longer used."""
        opened, self._opened, self._key = self._opened, None, None
        if opened is not None:
            with self.device.current():
                opened.close()

    def _open(self, plan: Plan, batch: int, work: DeviceWork) -> None:
        self.drop()
        # Where there are fewer bands than GPUs, one without a band runs nothing, but is opened as well.
        bands = (range(self._index, plan.bands, self._of) or range(1)) if isinstance(plan, StripPlan) else range(0)
        self._opened = _Opened(work, self.device, plan, batch, bands)
        self._key = work.level, _shape(plan, batch)


class _Opened:
    """Ring, network and carries for plans of one shape. Owns them."""

    def __init__(self, work: DeviceWork, device: Device, plan: Plan, batch: int, bands: Sequence[int]) -> None:
        contract, family = work.model.contract, work.family
        self._device, self._contract, self._plan, self._partials = device, contract, plan, work.partials
        self._ring = Ring(device, load_bytes(work, plan, batch), SLOTS)
        self._replays = Replays(self._ring.compute, most=replays_of(SLOTS, len(bands)))
        self._networks = _CurrentNetwork(device, family, plan, self._ring, self._replays)
        self._carries: DeviceCarries | None = None
        try:
            self._constants = _ConstantBuffers(work, self._ring)
            if isinstance(plan, StripPlan):
                self._carries = DeviceCarries(self._ring, plan.strips, width=plan.x.tile, bands=bands)
            self._warm_up(bands)
        except BaseException:
            self.close()
            raise

    def lane(self, plan: Plan, constants: Constants, cancellation: Cancellation, free: Free) -> DeviceLane:
        """Create a lane for ``plan``, of the shape of the one that this was opened for."""
        self._constants.fill(constants)
        return DeviceLane(
            device=self._device,
            ring=self._ring,
            networks=self._networks,
            replays=self._replays,
            carries=self._carries,
            constants=self._constants.addresses,
            plan=plan,
            contract=self._contract,
            cancellation=cancellation,
            free=free,
            partials=self._partials,
        )

    def close(self) -> None:
        try:
            self._networks.close()
        finally:
            self._ring.close()

    def _warm_up(self, bands: Sequence[int]) -> None:
        """Run every network once, the one that a run begins with last."""
        for role, rows in reversed(_networks_of(self._plan)):
            place = StripPlace(role, bands[0]) if role != "tile" and len(bands) else None
            network = self._networks.take(role, rows)
            slot, told = self._ring.slots[0], self._constants.addresses
            where = addresses(
                self._contract, slot, self._carries, place, {**told, **masks_at(slot, self._partials, self._plan)}
            )
            network.enqueue(where, rows=rows, stream=self._ring.compute.handle)
            self._ring.compute.synchronize()


class _CurrentNetwork:
    """Implements ``exactile.pipeline.device_lane.Networks``: one network is open, the last that was requested."""

    def __init__(self, device: Device, family: EngineFamily, plan: Plan, ring: Ring, replays: Replays) -> None:
        self._device, self._family, self._plan = device, family, plan
        self._ring, self._replays = ring, replays
        self._network: DeviceNetwork | None = None
        self._name: Hashable = None
        self.opening_s = 0.0

    def take(self, role: EngineRole, rows: int) -> DeviceNetwork:
        name = self._family.needed(self._plan, role, rows)
        if self._network is None or name != self._name:
            begin = time.perf_counter()
            self.close()
            stream = self._ring.compute.handle
            self._network = self._family.open(self._device.info, self._plan, role, rows, stream=stream)
            self._name = name
            self.opening_s += time.perf_counter() - begin
        return self._network

    def close(self) -> None:
        network, self._network, self._name = self._network, None, None
        if network is None:
            return
        self._ring.settle()
        try:
            self._replays.clear()
        finally:
            network.close()


class _ConstantBuffers:
    """Statistics of the whole image on the device: those that the model normalises by, and those that it takes."""

    def __init__(self, work: DeviceWork, ring: Ring) -> None:
        image = work.model.contract.image
        sizes = dict(work.statistics)
        if image.statistics is not None:
            of_image = image.channels * 4  # (1, C, 1, 1) float32
            sizes |= dict.fromkeys((image.statistics.offset_name, image.statistics.scale_name), of_image)
        self._ring = ring
        self._buffers = {name: (ring.buffer(size), ring.pinned(size)) for name, size in sizes.items()}

    @property
    def addresses(self) -> Mapping[str, int]:
        return {name: buffer.address for name, (buffer, _) in self._buffers.items()}

    def fill(self, constants: Constants) -> None:
        """Copy values to the device, on the stream that uses them. A pass does not know the values that
        it has to find.
        """
        for name, (buffer, pinned) in self._buffers.items():
            if name not in constants:
                continue
            pinned.array[:] = constants[name].reshape(-1).view("uint8")
            self._ring.compute.copy_in(buffer, pinned.array)
        self._ring.compute.synchronize()


def load_bytes(work: DeviceWork, plan: Plan, batch: int) -> LoadBytes:
    """Return the bytes of a load of ``work``."""
    if work.partials is None:
        return LoadBytes.of(work.model.contract, plan, batch)
    assert isinstance(plan, TilePlan)
    return LoadBytes.of_partials(work.model.contract, plan, work.partials)


def statistic_bytes(model: DeployedModel) -> dict[str, int]:
    """Return the bytes of all inputs that take statistics of the whole image, by name: float32."""
    found = [one for level in model.levels for one in level.statistics]
    return {name: 4 * prod(shape) for one in found for name, shape in zip(one.inputs, one.shapes, strict=True)}


def _networks_of(plan: Plan) -> list[tuple[EngineRole, int]]:
    """Return role and rows of every network that a run of ``plan`` uses, in order."""
    if not isinstance(plan, StripPlan):
        return [("tile", plan.y.tile)]
    return list(dict.fromkeys(zip(plan.y.roles, plan.y.heights, strict=True)))


def _shape(plan: Plan, batch: int) -> Hashable:
    """Return the shape of a plan: plans of equal shapes share what is opened."""
    if not isinstance(plan, StripPlan):
        return "tile", plan.tile_shape, plan.tile_output_shape, _largest_zone(plan), batch
    made = plan.strips.key, plan.x.tile, plan.bands, tuple(_networks_of(plan))
    return "strip", *made, plan.tile_output_shape, _largest_zone(plan)


def _largest_zone(plan: Plan) -> tuple[int, int]:
    return max(zor.length for zor in plan.y.zors), max(zor.length for zor in plan.x.zors)
