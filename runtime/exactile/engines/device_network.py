"""The protocol between a device lane and a network on a GPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from exactile.contract.statistic import PREFIX


class DeviceNetwork(Protocol):
    """A network with inputs and outputs in device memory; work is enqueued on the caller's stream.

    Used from one thread, with the device's context current. Owned by whoever opened it.
    """

    @property
    def capturable(self) -> bool:
        """Whether ``enqueue`` only puts work on the stream, so that it can be captured as a CUDA graph."""

    def enqueue(self, addresses: Mapping[str, int], *, rows: int, stream: int) -> None:
        """Put one inference over ``rows`` image rows on ``stream`` (a CUstream), and return.

        ``addresses`` are device addresses of every input and output by name; they stay valid until the work is done.
        Statistics of the whole image that it does not take may be among them.
        Raises EngineError, DeviceMemoryError.
        """

    def close(self) -> None:
        """Release it, once its work is done; safe to call twice."""


def taken(addresses: Mapping[str, int], tensors: Collection[str]) -> dict[str, int]:
    """Return ``addresses`` without statistics that a network with these ``tensors`` does not take."""
    return {name: address for name, address in addresses.items() if name in tensors or not name.startswith(PREFIX)}
