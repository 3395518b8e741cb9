"""The speed of a machine, independent of the network."""

from __future__ import annotations

from dataclasses import dataclass

REACHED = 0.5
"""The fraction of the speed of plain convolutions that whole networks reach.

Measured on two cores: 0.41 to 0.96, with U-Nets of 8 to 64 features, a ResNet U-Net, and FC-DenseNet-56.
"""

LEAST_PIXEL_S = 2e-8
"""Least time of a pixel: it is always read, normalised and written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpeed:
    """The rates of all threads together.

    ``mac_per_s``: multiply-accumulates of convolutions in float32. ``touched_bytes_per_s``: bytes of memory that the
    process uses for the first time, which the system must find and clear.
    """

    mac_per_s: float
    touched_bytes_per_s: float

    def pixel_s(self, mac: float) -> float:
        """Return the seconds for a pixel of so many multiply-accumulates."""
        return max(LEAST_PIXEL_S, mac / (REACHED * self.mac_per_s))


def usual_speed(threads: int) -> MachineSpeed:
    """Return the usual speed of current servers and notebooks: each of ``threads`` contributes equally."""
    return MachineSpeed(mac_per_s=40e9 * threads, touched_bytes_per_s=1.2e9 * threads)
