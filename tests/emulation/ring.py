"""A ring of two slots through three streams, as the runtime's: the program that bugs are planted in.

Each slot has a pinned input, a device input, a device output and a pinned output, and three events: loaded, computed,
taken. What may be left out is named in ``WAITS``; a program that leaves nothing out is right.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from tests.emulation.bindings import Binding, Held
from tests.emulation.driver import Emulation, Range

TILE = (24, 40)  # rows, columns
CROP = (16, 30)
CROP_AT = (3, 5)
WAITS = (
    "refill waits for copy in",
    "copy in waits for compute",
    "compute waits for copy in",
    "compute waits for copy out",
    "copy out waits for compute",
    "host waits for copy out",
)
ORDER = "host takes an output before its slot is used again"


def array_at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    """Device memory, as a function on a stream sees it."""
    size = int(np.prod(shape))
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8).reshape(shape)


@dataclass(slots=True)
class Slot:
    pinned_in: np.ndarray
    device_in: int
    device_out: int
    pinned_out: np.ndarray
    loaded: Held
    computed: Held
    taken: Held


class Ring:
    """The program. ``without`` is the wait that it forgets; ``pitch`` what it believes a device row to be."""

    def __init__(self, emulation: Emulation, binding: Binding, *, without: str = "", pitch: int = TILE[1]) -> None:
        assert without in {"", ORDER, *WAITS}
        self.emulation, self.binding, self.without, self.pitch = emulation, binding, without, pitch
        self.copying_in, self.computing, self.copying_out = (binding.stream() for _ in range(3))
        for stream, name in (
            (self.copying_in, "copy in"),
            (self.computing, "compute"),
            (self.copying_out, "copy out"),
        ):
            emulation.name_stream(binding.handle(stream), name)
        self.slots = [self._slot() for _ in range(2)]

    def _slot(self) -> Slot:
        tile_bytes, crop_bytes = TILE[0] * TILE[1], CROP[0] * CROP[1]
        return Slot(
            pinned_in=self.binding.pinned(tile_bytes).reshape(TILE),
            device_in=self.binding.memory(tile_bytes),
            device_out=self.binding.memory(tile_bytes),
            pinned_out=self.binding.pinned(crop_bytes).reshape(CROP),
            loaded=self.binding.event(),
            computed=self.binding.event(),
            taken=self.binding.event(),
        )

    def run(self, tiles: list[np.ndarray]) -> list[np.ndarray]:
        """The crops of what is computed for each tile."""
        results = []
        for number, tile in enumerate(tiles):
            slot = self.slots[number % 2]
            self._load(slot, tile)
            self._compute(slot)
            steps = [self._unload] if number < 2 else [self._take, self._unload]
            taken = [step(slot) for step in (steps if self._does(ORDER) else steps[::-1])]
            results += [crop for crop in taken if crop is not None]
        results += [self._take(self.slots[number % 2]) for number in range(max(len(tiles) - 2, 0), len(tiles))]
        for stream in (self.copying_in, self.computing, self.copying_out):
            self.binding.synchronize(stream)
        return results

    def _load(self, slot: Slot, tile: np.ndarray) -> None:
        if self._does("refill waits for copy in"):
            self.binding.synchronize(slot.loaded)
        self.emulation.host_write((slot.pinned_in.ctypes.data, slot.pinned_in.nbytes))
        slot.pinned_in[...] = tile
        if self._does("copy in waits for compute"):
            self.binding.wait(self.copying_in, slot.computed)
        self.binding.copy_in(slot.device_in, slot.pinned_in, self.copying_in)
        self.binding.record(slot.loaded, self.copying_in)

    def _compute(self, slot: Slot) -> None:
        if self._does("compute waits for copy in"):
            self.binding.wait(self.computing, slot.loaded)
        if self._does("compute waits for copy out"):
            self.binding.wait(self.computing, slot.taken)
        source, target = array_at(slot.device_in, TILE), array_at(slot.device_out, TILE)
        self.emulation.enqueue(
            self.binding.handle(self.computing),
            lambda: np.copyto(target, network(source)),
            reads=[(slot.device_in, source.nbytes)],
            writes=[(slot.device_out, target.nbytes)],
        )
        self.binding.record(slot.computed, self.computing)

    def _unload(self, slot: Slot) -> None:
        if self._does("copy out waits for compute"):
            self.binding.wait(self.copying_out, slot.computed)
        y, x = CROP_AT
        self.binding.crop_out(slot.pinned_out, slot.device_out, self.copying_out, pitch=self.pitch, y=y, x=x)
        self.binding.record(slot.taken, self.copying_out)

    def _take(self, slot: Slot) -> np.ndarray:
        if self._does("host waits for copy out"):
            self.binding.synchronize(slot.taken)
        self.emulation.host_read(Range(slot.pinned_out.ctypes.data, slot.pinned_out.nbytes))
        return slot.pinned_out.copy()

    def _does(self, wait: str) -> bool:
        return wait != self.without


def network(tile: np.ndarray) -> np.ndarray:
    return tile * np.uint8(3) + np.uint8(1)


def tiles(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(count).integers(0, 256, (count, *TILE), np.uint8))


def expected(images: list[np.ndarray]) -> list[np.ndarray]:
    (y, x), (rows, columns) = CROP_AT, CROP
    return [network(image)[y : y + rows, x : x + columns] for image in images]
