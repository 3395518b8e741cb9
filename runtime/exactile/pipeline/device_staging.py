"""Pinned memory that runs read images into: allocated before a run, in one piece, and kept for the next run.

Page-locking takes longer for more bytes, and work of different streams does not overlap during it (CUDA's programming
guide, on implicit synchronisation).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from exactile.cuda.protocol import Bytes, Device, PinnedBuffer
from exactile.geometry import round_up

ALIGNMENT_BYTES = 256


class Staging:
    """The memory of the last run is kept until one of another size comes. Owns it; ``device`` outlives it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._kept: tuple[int, PinnedBuffer] | None = None

    @contextmanager
    def buffers(self, count: int, size_bytes: int) -> Iterator[Sequence[Bytes]]:
        """Yield ``count`` buffers of ``size_bytes`` each; the device's context must be current.

        Raises DeviceMemoryError.
        """
        step = round_up(size_bytes, ALIGNMENT_BYTES)
        with self._device.current():
            pinned = self._take(count * step)
            try:
                yield [pinned.array[start : start + size_bytes] for start in range(0, count * step, step)]
            finally:
                self._give_back(count * step, pinned)

    def close(self) -> None:
        """Release what is kept; safe to call twice."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            kept[1].close()

    def _take(self, total_bytes: int) -> PinnedBuffer:
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None and kept[0] == total_bytes:
            return kept[1]
        if kept is not None:
            kept[1].close()
        return self._device.memory.pinned(total_bytes)

    def _give_back(self, total_bytes: int, pinned: PinnedBuffer) -> None:
        """Keep the memory; release it if another run kept some first."""
        with self._lock:
            free = self._kept is None
            if free:
                self._kept = total_bytes, pinned
        if not free:
            pinned.close()
