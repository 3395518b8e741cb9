"""Check the cyclic shifts and masks that rules assumed, as in attention in shifted windows (Swin and similar)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from exactile_converters.geometry.edge_masks import Masks, Needed, Place
from exactile_converters.geometry.feature_maps import ForwardWalk
from exactile_converters.geometry.node_view import SPATIAL
from exactile_converters.geometry.probe import Probe
from exactile_converters.geometry.shifted_maps import check_shifts

ProbeAt = Callable[[Place], Probe]

FOLLOWED = (2, 2)
"""Size in strides of the image at which shifted maps are followed: it has each kind of window."""

SIZES = ((1, 1), FOLLOWED, (3, 1), (1, 3))
"""Sizes in strides of the images, (along y, along x), at which masks are compared."""

MASK_ELEMENTS = 1 << 24
"""Masks of up to this many numbers are computed: 256 windows of 16 by 16 positions."""


def check_shifted_windows(
    walk: ForwardWalk,
    nodes: Sequence[ir.Node],
    probe_at: ProbeAt,
    *,
    smallest: Place,
    results: Sequence[ir.Value],
    needed: Needed,
) -> None:
    """Add obstacles where a shift or a mask of a ``walk`` without obstacles is not what its rule assumed.

    ``probe_at`` computes constants of up to MASK_ELEMENTS. ``smallest`` is the (height, width) of the smallest image of
    the walk's remainders.
    """
    if walk.obstacles or not any(one.masks or one.shift for one in walk.transfers.values()):
        return
    y, x = walk.stride("y"), walk.stride("x")
    masks = Masks(walk, nodes)
    for times in SIZES:
        place = times[0] * y + smallest[0] % y, times[1] * x + smallest[1] % x
        probe = probe_at(place)
        masks.compare(place, probe)
        if times == FOLLOWED:
            check_shifts(walk, nodes, results, probe)
    walk.obstacles.extend(
        masks.obstacles(dict(zip(SPATIAL, (y + smallest[0] % y, x + smallest[1] % x), strict=True)), needed)
    )
