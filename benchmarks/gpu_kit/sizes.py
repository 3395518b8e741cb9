"""How large the networks and images of the checks are: in full, and in a rehearsal."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.gpu_kit.rehearsal import rehearsing


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sides in pixels, images square but for ``exactness``: (height, width), a multiple of every network's stride.

    ``advance`` is how far each tile of the exactness checks lies from the one before; ``rows`` those of a strip.
    ``figures``: the side of the image for networks whose figures are taken; ``figures_slow`` where a pass is slow;
    likewise ``peers``. ``plans_tiles`` are those that cover 20000 pixels with 20, 10 and 5 tiles for a halo of 94.
    """

    exactness: tuple[int, int]
    advance: int
    rows: int
    resumed: int
    memory: int
    crowded: int
    crowded_left_bytes: int
    figures: int
    figures_slow: int
    one_pass: int
    peers: int
    peers_slow: int
    peer_tiles: tuple[int, int]
    peer_halo: int
    plans_tiles: tuple[int, ...]
    free_engine: int
    free_tile: int
    rounds: int


FULL = Sizes(
    exactness=(1440, 1312),
    advance=224,
    rows=128,
    resumed=6144,
    memory=2048,
    crowded=4096,
    crowded_left_bytes=3 << 30,
    figures=20000,
    figures_slow=10000,
    one_pass=3072,
    peers=8192,
    peers_slow=4096,
    peer_tiles=(512, 1024),
    peer_halo=96,
    plans_tiles=(1184, 2176, 4160),
    free_engine=12000,
    free_tile=2048,
    rounds=3,
)

REHEARSAL = Sizes(
    exactness=(288, 256),
    advance=32,
    rows=16,
    resumed=320,
    memory=256,
    crowded=512,
    crowded_left_bytes=3 << 19,
    figures=768,
    figures_slow=512,
    one_pass=256,
    peers=384,
    peers_slow=256,
    peer_tiles=(128, 192),
    peer_halo=32,
    plans_tiles=(128, 256),
    free_engine=1024,
    free_tile=512,
    rounds=1,
)


def sizes() -> Sizes:
    return REHEARSAL if rehearsing() else FULL
