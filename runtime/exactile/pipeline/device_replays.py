"""The compute step as a CUDA graph: one launch instead of a network's hundreds."""

from __future__ import annotations

from collections.abc import Mapping

from exactile.cuda.protocol import CapturingStream, Replay, Stream
from exactile.engines.device_network import DeviceNetwork

MOST_REPLAYS = 256
"""Most graphs to keep, whatever a plan could use: each takes memory of the GPU, for every kernel of the network."""


def replays_of(slots: int, bands: int) -> int:
    """Return how many graphs a network can have: one for each slot's addresses and each set of each band's carries."""
    return min(MOST_REPLAYS, slots * 2 * max(1, bands))


class Replays:
    """Captured enqueues of one network, by the addresses they use, at ``most`` so many. Owns the graphs.

    Further addresses are enqueued without capture. No graph is evicted for another: bands are used in turn, so that the
    least recently used graph is the next one needed.
    """

    def __init__(self, stream: Stream, *, most: int = MOST_REPLAYS) -> None:
        self._stream, self._most = stream, most
        self._replays: dict[tuple[object, ...], Replay | None] = {}

    def enqueue(self, network: DeviceNetwork, addresses: Mapping[str, int], rows: int) -> None:
        """Put one inference on the stream: captured from the second time on that it uses the same addresses.

        The first time it is not captured: libraries set up what they need, which must not be part of a graph.
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
        """Drop the graphs, because their network is closed. Their work must be done."""
        replays, self._replays = self._replays, {}
        for replay in replays.values():
            if replay is not None:
                replay.close()
