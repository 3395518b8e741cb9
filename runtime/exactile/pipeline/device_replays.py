"""The compute step as a CUDA graph: one launch in place of a network's hundreds."""

from __future__ import annotations

from collections.abc import Mapping

from exactile.cuda.protocol import CapturingStream, Replay, Stream
from exactile.engines.device_network import DeviceNetwork

MOST_REPLAYS = 256
"""Graphs that are kept, whatever a plan could use: each takes memory of the GPU, for every kernel of the network."""


def replays_of(slots: int, bands: int) -> int:
    """Return how many graphs a network can have: one for the addresses of each slot, with each turn of each band's
    carries.
    """
    return min(MOST_REPLAYS, slots * 2 * max(1, bands))


class Replays:
    """Captured enqueues of one network, by the addresses they work on, at ``most`` so many. Owns the graphs.

    Addresses beyond those are enqueued as they are. No graph is given up for another: bands come round one after the
    other, so that the one used longest ago is the one wanted next.
    """

    def __init__(self, stream: Stream, *, most: int = MOST_REPLAYS) -> None:
        self._stream, self._most = stream, most
        self._replays: dict[tuple[object, ...], Replay | None] = {}

    def enqueue(self, network: DeviceNetwork, addresses: Mapping[str, int], rows: int) -> None:
        """Put one inference on the stream: captured from the second time on that it works on the same addresses.

        The first time it runs as it is: libraries set up what they need, which must not be part of a graph.
        """
        stream = self._stream
        if not isinstance(stream, CapturingStream) or not network.capturable:
            network.enqueue(addresses, rows=rows, stream=stream.handle)
            return
        key = (rows, *sorted(addresses.items()))
        replay = self._replays.get(key)
        if replay is None and key in self._replays:
            replay = self._replays[key] = stream.capture(
                lambda: network.enqueue(addresses, rows=rows, stream=stream.handle)
            )
        if replay is not None:
            replay.launch(stream)
            return
        if len(self._replays) < self._most:
            self._replays[key] = None
        network.enqueue(addresses, rows=rows, stream=stream.handle)

    def clear(self) -> None:
        """Forget the graphs: their network goes. Their work must be done."""
        replays, self._replays = self._replays, {}
        for replay in replays.values():
            if replay is not None:
                replay.close()
