"""The walk over the graph that turns a network into geometry, or into obstacles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, floor, lcm

import onnx_ir as ir

from exactile.geometry import AxisGeometry, Geometry, Span
from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk, ImageSizes, image_shape, walk_forward
from exactile_converters.geometry.maps_beside import check_filled_maps, check_flips
from exactile_converters.geometry.node_view import SPATIAL, Label, Labels
from exactile_converters.geometry.obstacle import Obstacle, ObstacleError, obstacle_at
from exactile_converters.geometry.origin import origins
from exactile_converters.geometry.period import settle_period
from exactile_converters.geometry.probe import FOLD_LIMIT_ELEMENTS, Memory, Probe
from exactile_converters.geometry.reach import Placed
from exactile_converters.geometry.shifted_windows import MASK_ELEMENTS, check_shifted_windows
from exactile_converters.geometry.size_decisions import check_size_decisions
from exactile_converters.geometry.steady_numbers import check_steady_numbers
from exactile_converters.geometry.steps import check_scales, stride_by_operators, written_steps

FIRST_BASE_PX = 2880
"""Probed sizes are multiples of this and of the network's stride, large enough that no map is empty."""

MOST_REMAINDERS = 64
MOST_VISITS = 100_000
"""Most sizes tried, or nodes visited, in search of sizes that the network accepts."""

FAR_PX = 1 << 40

LARGEST_STRIDE = 4096
"""A larger one means that the rules misinterpret the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """The result of the walk: ``geometry`` is None exactly when there are obstacles. ``sizes`` are those it probed.

    ``own`` are walks at sizes of other remainders that can be tiled, by axis and remainder; ``in_one_piece`` holds, for
    those that cannot, the pixels of maps beyond their share of the image. ``memory`` is that of further probes of the
    graph, as long as it is not changed.
    """

    geometry: Geometry | None
    obstacles: tuple[Obstacle, ...]
    nodes: tuple[ir.Node, ...]
    features: Mapping[str, FeatureMap]
    sizes: ImageSizes
    walk: ForwardWalk
    own: Mapping[tuple[Label, int], ForwardWalk] = field(default_factory=dict)
    in_one_piece: Mapping[tuple[Label, int], Mapping[str, Fraction]] = field(default_factory=dict)
    memory: Memory = field(default_factory=dict, repr=False, compare=False)


def trace(
    model: ir.Model,
    image: ir.Value,
    output: ir.Value,
    *,
    labels: Labels,
    channels: int,
    also: Sequence[ir.Value] = (),
) -> Traced:
    """Return the geometry of ``output`` as a function of ``image``, with axes ``labels``; maps ``also`` are walked,
    too.

    ``model``'s graph must be sorted, without functions, its names unique.
    """
    nodes = ancestors(model, output, *also)
    memory: Memory = {}

    def forward(remainder: int, base: int, more: tuple[int, int] = (0, 0)) -> ForwardWalk:
        return walk_forward(model, image, labels, channels, nodes, probed_sizes(base, remainder, more), memory)

    base = lcm(FIRST_BASE_PX, written_steps(nodes, LARGEST_STRIDE))
    walk = forward(0, base)
    while base % (stride := stride_by_operators(walk, nodes)) and stride <= LARGEST_STRIDE:
        base = lcm(base, stride)
        walk = forward(0, base)
    remainder = 0
    if walk.obstacles and _may_fit_other_sizes(walk):
        for candidate in range(1, min(stride, LARGEST_STRIDE, max(MOST_REMAINDERS, MOST_VISITS // max(1, len(nodes))))):
            other = forward(candidate, base)
            if not other.obstacles:
                walk, remainder = other, candidate
                break
    check_scales(walk, nodes, LARGEST_STRIDE)
    settle_period(walk, nodes, more=lambda y, x: forward(remainder, base, (y, x)), base=base, largest=LARGEST_STRIDE)
    smallest = remainder % walk.stride("y") or walk.stride("y"), remainder % walk.stride("x") or walk.stride("x")

    def probe_at(place: tuple[int, int], most_elements: int = FOLD_LIMIT_ELEMENTS) -> Probe:
        shape = image_shape(labels, channels, place)
        return Probe(model, image.name or "", shape, memory=memory, most_elements=most_elements)

    check_shifted_windows(
        walk,
        nodes,
        lambda place: probe_at(place, MASK_ELEMENTS),
        smallest=smallest,
        results=(output, *also),
        needed=lambda feature, axis, wanted: needed_spans(walk, nodes, feature, axis, wanted=wanted),
    )
    for check in (check_size_decisions, check_steady_numbers):
        check(walk, nodes, probe_at, base=base, smallest=smallest)
    check_flips(walk, nodes, output, with_statistics=bool(also))
    if also:
        check_filled_maps(walk, nodes)
    found = _conclude(walk, nodes, output, remainder, probed_sizes(base, remainder))
    return replace(found, memory=memory)


def probed_sizes(base: int, remainder: int, more: tuple[int, int] = (0, 0)) -> ImageSizes:
    """Return two image sizes that differ on both axes, ``remainder`` (and ``more``) above a multiple of ``base``."""
    y, x = remainder + more[0], remainder + more[1]
    return ImageSizes((2 * base + y, 3 * base + x), (3 * base + y, 5 * base + x))


def ancestors(model: ir.Model, *outputs: ir.Value) -> list[ir.Node]:
    """Return the nodes from which ``outputs`` are computed, in graph order."""
    wanted: set[ir.Node] = set()
    stack = [output.producer() for output in outputs]
    while stack:
        node = stack.pop()
        if node is None or node in wanted:
            continue
        wanted.add(node)
        stack.extend(value.producer() for value in node.inputs if value is not None)
    return [node for node in model.graph if node in wanted]


def _may_fit_other_sizes(walk: ForwardWalk) -> bool:
    return all(obstacle.sizes_differ for obstacle in walk.obstacles)


def _conclude(walk: ForwardWalk, nodes: list[ir.Node], output: ir.Value, remainder: int, sizes: ImageSizes) -> Traced:
    obstacles = list(walk.obstacles)
    result = walk.features.get(output.name or "")
    if result is None and not obstacles:
        obstacles.append(
            Obstacle(
                node=output.name or "?",
                op="output",
                reason="it is not computed from the image",
                remedy="Choose another output",
            )
        )
    maker = output.producer()
    if maker is not None and maker.op_type == "MaxPool" and output.index() and not obstacles:
        obstacles.append(
            obstacle_at(
                maker,
                ObstacleError(
                    "the output is the positions that it found, which count from the corner of a tile",
                    "Choose another output",
                ),
            )
        )
    geometry = None
    if result is not None and not obstacles:
        missing = [axis for axis in SPATIAL if axis not in result.labels]
        if missing:
            obstacles.append(
                Obstacle(
                    node=result.name,
                    op="output",
                    reason=f"it has no {' and no '.join(missing)} axis",
                    remedy="Choose an output that is a map of the image",
                )
            )
        else:
            y, x = (axis_geometry(walk, nodes, result, axis, remainder) for axis in SPATIAL)
            geometry = Geometry(y=y, x=x)
    return Traced(
        geometry=geometry,
        obstacles=tuple(obstacles),
        nodes=tuple(nodes),
        features=walk.features,
        sizes=sizes,
        walk=walk,
    )


def axis_geometry(
    walk: ForwardWalk, nodes: list[ir.Node], result: FeatureMap, axis: Label, remainder: int
) -> AxisGeometry:
    """Return the geometry along one axis, from the spans that one stride of input needs."""
    stride = walk.stride(axis)
    scale = result.scale[axis]
    needed = needed_spans(walk, nodes, result, axis)
    _, after = margins(walk, needed_spans(walk, nodes, result, axis, last_px=FAR_PX), axis)
    # The last but one tile ends a stride before the image, or earlier; the last boundary lies margin_after before that.
    before, _ = margins(walk, needed_spans(walk, nodes, result, axis, last_px=stride + after), axis)
    span = needed[next(iter(walk.features))]
    return AxisGeometry(
        stride=stride,
        before=-span.start,
        after=span.stop - stride,
        extra_before=before + span.start,
        extra_after=after - (span.stop - stride),
        scale=scale,
        origin=origins(walk, nodes, result, axis)[result.name],
        size_constant=result.constant[axis],
        remainder=remainder % stride,
        placed=has_placed(walk, nodes, axis),
    )


def has_placed(walk: ForwardWalk, nodes: Sequence[ir.Node], axis: Label) -> bool:
    """Return whether some operator depends on the position along ``axis``."""
    transfers = [walk.transfers[node] for node in nodes if node in walk.transfers]
    return any(
        transfer.positions or any(isinstance(flow.along(axis), Placed) for flow in transfer.flows)
        for transfer in transfers
    )


def needed_spans(
    walk: ForwardWalk,
    nodes: Sequence[ir.Node],
    result: FeatureMap,
    axis: Label,
    *,
    last_px: int | None = None,
    wanted: Span | None = None,
) -> dict[str, Span]:
    """Return what the output of one stride of input needs of each feature map, back to the image.

    Each span is in its own feature map's pixels. With ``wanted``, they are for that span of the output. With
    ``last_px``, each also contains what reflection reads at the edges of the image: of the first tile, and of the last,
    which begins ``last_px`` pixels or more before the end.
    """
    one_stride = Span(0, int(walk.stride(axis) * result.scale[axis]))
    needed: dict[str, Span] = {result.name: one_stride if wanted is None else wanted}
    for node in reversed(nodes):
        transfer = walk.transfers.get(node)
        read = [needed[value.name] for value in node.outputs if value.name and value.name in needed]
        if transfer is None or not read:
            continue
        together = Span(min(span.start for span in read), max(span.stop for span in read))
        for flow in transfer.flows:
            value = node.inputs[flow.operand]
            if value is None or not value.name or axis not in walk.features[value.name].scale:
                continue
            span = flow.along(axis).needed(together)
            if last_px is not None and axis in flow.reflected:
                span = _with_reflection(span, walk.features[value.name], flow.reflected[axis], axis, last_px)
            known = needed.get(value.name, span)
            needed[value.name] = Span(min(known.start, span.start), max(known.stop, span.stop))
    return needed


def _with_reflection(span: Span, operand: FeatureMap, pads: tuple[int, int], axis: Label, last_px: int) -> Span:
    """Add what reflection reads: pixels 1 to ``pads`` before the first, and those before the last one after it."""
    before, after = pads
    start, stop = span.start, span.stop
    if before > 0:
        stop = max(stop, before + 1)
    if after > 0:
        start = min(start, floor(last_px * operand.scale[axis] + operand.constant[axis]) - after - 1)
    return Span(start, stop)


def margins(walk: ForwardWalk, needed: Mapping[str, Span], axis: Label) -> tuple[int, int]:
    """Return the input pixels a tile needs on each side so that every tensor, not only the image, is complete."""
    before, after = [], []
    stride = walk.stride(axis)
    for name, span in needed.items():
        feature = walk.features[name]
        scale, constant = feature.scale[axis], feature.constant[axis]
        counted = walk.unmirrored(name, span, axis)
        before.append(ceil(-counted.start / scale))
        after.append(ceil((counted.stop - constant) / scale) - stride)
    return max(before), max(after)
