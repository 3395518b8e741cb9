"""Attention in shifted windows (Swin and its kind): cyclic shifts and masks that rules took for what they should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from exactile_converters.geometry.edge_masks import Needed, Place, check_masks
from exactile_converters.geometry.feature_maps import ForwardWalk
from exactile_converters.geometry.probe import Probe
from exactile_converters.geometry.shifted_maps import check_shifts

ProbeAt = Callable[[Place], Probe]

FOLLOWED = (2, 2)
"""Strides of the image at which shifted maps are followed: each kind of window is there."""

SIZES = ((1, 1), (2, 1), (1, 2), FOLLOWED, (3, 1), (1, 3))
"""Strides of the images, (along y, along x), at which masks are compared."""


def check_shifted_windows(
    walk: ForwardWalk,
    nodes: Sequence[ir.Node],
    probe_at: ProbeAt,
    *,
    smallest: Place,
    results: Sequence[ir.Value],
    needed: Needed,
) -> None:
    """Add obstacles where a shift or a mask of a ``walk`` without any is not what its rule took it for.

    ``smallest`` is the (height, width) of the smallest image of the walk's remainders.
    """
    if walk.obstacles or not any(one.masks or one.shift for one in walk.transfers.values()):
        return
    y, x = walk.stride("y"), walk.stride("x")
    places = {times: (times[0] * y + smallest[0] % y, times[1] * x + smallest[1] % x) for times in SIZES}
    probes = {place: probe_at(place) for place in places.values()}
    check_masks(walk, nodes, probes, needed)
    check_shifts(walk, nodes, results, probes[places[FOLLOWED]])
