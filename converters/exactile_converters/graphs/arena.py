"""Place buffers as ONNX Runtime's allocator does inside one large region, and find how much of it is touched.

``BFCArena`` keeps free pieces, gives a request the smallest piece that holds it (the lowest address among equals),
splits off the rest and merges neighbouring free pieces immediately. Memory that was never handed out is never touched,
so the resident size is the highest end of any buffer. With symbolic addresses, each such end is a sum of buffer sizes,
that is, a ``BytesForShape``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exactile.contract import BytesForShape
from exactile.engines.arena import SPLIT_REST_BYTES
from exactile_converters.graphs.liveness import Allocation, Event
from exactile_converters.graphs.uses import NOTHING, plus

ALIGNMENT_BYTES = 256


@dataclass(slots=True, kw_only=True)
class _Piece:
    address: int
    size_bytes: int
    start: BytesForShape  # the address as a function of the tile's shape


def footprints(events: Sequence[Event], *, height: int, width: int) -> list[BytesForShape]:
    """Return the end address of every allocation, placed as for a tile of ``height`` x ``width`` pixels."""
    free = [_Piece(address=0, size_bytes=1 << 62, start=NOTHING)]
    used: dict[int, _Piece] = {}
    ends = []
    for event in events:
        if isinstance(event, Allocation):
            need = _round(event.size.at(height, width))
            piece = min((p for p in free if p.size_bytes >= need), key=lambda p: (p.size_bytes, p.address))
            free.remove(piece)
            end = plus(piece.start, event.size)
            ends.append(end)
            rest = piece.size_bytes - need
            if piece.size_bytes >= 2 * need or rest >= SPLIT_REST_BYTES:
                free.append(_Piece(address=piece.address + need, size_bytes=rest, start=end))
                piece.size_bytes = need
            used[event.buffer] = piece
        else:
            _give_back(free, used.pop(event.buffer))
    return ends


def _round(size_bytes: float) -> int:
    return -(-int(size_bytes) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _give_back(free: list[_Piece], piece: _Piece) -> None:
    for neighbour in list(free):
        if neighbour.address + neighbour.size_bytes == piece.address:
            free.remove(neighbour)
            neighbour.size_bytes += piece.size_bytes
            piece = neighbour
        elif piece.address + piece.size_bytes == neighbour.address:
            free.remove(neighbour)
            piece.size_bytes += neighbour.size_bytes
    free.append(piece)
