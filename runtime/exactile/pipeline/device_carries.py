"""Carries of strips on a GPU: two sets for each band, used alternately, which never leave the device."""

from __future__ import annotations

from collections.abc import Iterable

from exactile.contract import StripModel, StripRole
from exactile.pipeline.device_ring import Ring


class DeviceCarries:
    """A strip reads one set of its band and writes the other. The buffers are the ring's."""

    def __init__(self, ring: Ring, strips: StripModel, *, width: int, bands: Iterable[int]) -> None:
        def one_set() -> dict[str, int]:
            return {carry.name: ring.buffer(carry.bytes_at(width)).address for carry in strips.carries}

        self._sets = {band: (one_set(), one_set()) for band in bands}

    def addresses(self, role: StripRole, band: int) -> dict[str, int]:
        """Return where the next strip of ``band`` reads its carries and writes those for the one after it; then swap
        them.
        """
        current, following = self._sets[band]
        self._sets[band] = following, current
        found = {} if role == "first" else {f"{name}_in": address for name, address in current.items()}
        if role != "last":
            found |= {f"{name}_out": address for name, address in following.items()}
        return found
