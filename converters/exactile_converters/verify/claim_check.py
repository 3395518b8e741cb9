"""Check a network before its use: tiles and strips against one pass, at small sizes, within seconds.

What the walk over the graph claims is compared with the network itself, run by plain ONNX Runtime: the size of its
output, pixels beyond the halo of some boxes (set to infinity, they must not change the boxes), and the runtime's result
in tiles and in strips. ``verify`` checks more: whether a smaller halo suffices, and images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel, StripModel
from exactile.errors import BudgetError, EngineError
from exactile.geometry import AxisGeometry, Geometry, round_up
from exactile.machine.memory import resident_bytes
from exactile.plan.strips import least_rows
from exactile_converters.declared.feeding import as_fed
from exactile_converters.deploy import deploy
from exactile_converters.geometry.cost import cost_per_pixel
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.image_in import fitting_image_type
from exactile_converters.inspection import untileable
from exactile_converters.networks.network import Network
from exactile_converters.passes.fixed import with_fixed_statistics
from exactile_converters.plain_runs.bounded import Bounded, TooLargeError, check_room
from exactile_converters.plain_runs.claim import Axis
from exactile_converters.plain_runs.dependency import Lane, noise
from exactile_converters.plain_runs.difference import TOLERANCE
from exactile_converters.plain_runs.plan_check import STEPPING, PlanCheck
from exactile_converters.plain_runs.subject import Subject, private_copy, scores_of, value_named
from exactile_converters.verify.passes_check import STEPS as PASSES_STEPS
from exactile_converters.verify.passes_check import PassesCheck

Array = NDArray[Any]
Progress = Callable[[int, int], None]

MEMORY_BYTES = 1 << 30
"""Default memory of the check."""

WEIGHT_COPIES = 4
"""Weights in memory at once: of the network as read, of two copies, and of the engines."""

MOST_BAND_MACS = 2e10
"""Strips in several bands need an image that is both high and wide; a costlier one is not tried."""

MOST_SIZES = 8
"""Other accepted sizes tried along each axis; two of them are tried in tiles."""

STEPS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCheck:
    """What running the network shows: how ``tiles`` and ``strips`` differ from one pass; empty where they do not.

    ``strips`` were tried if ``with_strips``. ``untried`` says why the check could not decide. ``max_abs`` is the
    largest difference of a value, ``largest`` the largest value compared.
    """

    tiles: str = ""
    strips: str = ""
    with_strips: bool = False
    untried: str = ""
    max_abs: float = 0.0
    largest: float = 0.0


def check_claim(
    network: Network,
    *,
    strips: bool = True,
    memory_bytes: int | None = None,
    progress: Progress = lambda _done, _steps: None,
) -> ClaimCheck:
    """Run ``network``, which is not modified, and compare.

    A network with statistics of the whole image is checked first with all statistics one, then in passes.
    ``memory_bytes`` bounds the process's resident memory (default: MEMORY_BYTES more than now). ``progress`` gets steps
    done and the total. Raises NotTileableError where nothing is claimed.
    """
    network = as_fed(network)
    local, traced = network, network.trace()
    if traced.geometry is None:
        local = with_fixed_statistics(network)
        traced = local.trace()
    if traced.geometry is None:
        raise untileable(network)
    steps = STEPS if local is network else STEPS + PASSES_STEPS
    allowed = memory_bytes if memory_bytes is not None else resident_bytes() + MEMORY_BYTES
    constants = (value.const_value for value in network.model.graph.initializers.values())
    weights = sum(constant.nbytes for constant in constants if constant is not None)
    try:
        check_room(resident_bytes() + WEIGHT_COPIES * weights, allowed, "the weights")
        found = _check(local, traced, strips=strips, allowed=allowed, progress=lambda done, _: progress(done, steps))
        if local is network or found.tiles:
            return found
        result = traced.features[local.result.name or ""]
        check = PassesCheck(network, result, strips=strips and not found.strips, allowed=allowed)
        return _with_passes(found, check, lambda done: progress(STEPS + done, steps))
    except (TooLargeError, BudgetError) as error:
        return ClaimCheck(untried=str(error))


def _with_passes(found: ClaimCheck, check: PassesCheck, progress: Callable[[int], None]) -> ClaimCheck:
    """Add the result with the image's own statistics to what was ``found`` without."""
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done)

    tiles = check.tiles(step)
    strips = found.strips or ("" if tiles else check.strips())
    progress(PASSES_STEPS)
    return replace(
        found,
        tiles=tiles,
        strips=strips,
        with_strips=found.with_strips or check.model.strips is not None,
        untried="" if tiles or strips or check.plans.reacts else found.untried,
        max_abs=check.plans.max_abs,
        largest=check.plans.largest,
    )


def _check(network: Network, traced: Traced, *, strips: bool, allowed: int, progress: Progress) -> ClaimCheck:
    """Check sizes and halos of both axes, then both plans, until something differs."""
    model = deploy(private_copy(network), image_dtype=fitting_image_type(network), output="raw", strips=strips)

    def runs(name: str) -> Bounded:
        copy = private_copy(network)
        return Bounded(Subject(copy, value_named(copy, name), traced.features[name]), model, allowed)

    result = runs(network.result.name or "")
    scores = runs(scores_of(network, traced.features).name or "")
    plans = PlanCheck(model, result, stepping=any(node.op_type in STEPPING for node in network.model.graph))
    geometry = model.contract.geometry
    lanes: dict[Axis, Lane] = {}
    done, reacts, tiles, with_strips, strips_differ = 0, False, "", False, ""

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, STEPS)

    for axis, along, across in _axes(geometry.y, geometry.x):
        try:
            lanes[axis] = Lane.of(axis, along, across, result)
        except EngineError as error:
            return ClaimCheck(tiles=f"the network runs at none of the sizes that its graph promises: {error}")
        tiles = tiles or _sizes(lanes[axis], result)
        step()
        found, shows = _halo(lanes[axis], scores, masked=bool(traced.walk.shifted))
        tiles, reacts = tiles or found, reacts or shows
        step()
    for lane in lanes.values():
        tiles = tiles or plans.difference("tile", _extent(lane, lane.size), _tile(lane))
        step()
        tiles = tiles or _own_sizes(lane, result, plans)
        step()
    if model.strips is not None and not tiles:
        mac = float(cost_per_pixel(traced.nodes, traced.features).mac_per_pixel or 0)
        with_strips, strips_differ = True, _strips(model.strips, lanes, plans, result, mac)
        strips_differ = strips_differ or _other_strips(model, lanes, plans)
    step()
    decided = reacts or plans.reacts or tiles or strips_differ
    return ClaimCheck(
        tiles=tiles,
        strips=strips_differ,
        with_strips=with_strips,
        untried="" if decided else "its output is the same whatever the image is",
        max_abs=plans.max_abs,
        largest=plans.largest,
    )


def _axes(y: AxisGeometry, x: AxisGeometry) -> tuple[tuple[Axis, AxisGeometry, AxisGeometry], ...]:
    return ("y", y, x), ("x", x, y)


def _sizes(lane: Lane, result: Bounded) -> str:
    """Return how the output's size differs from the claimed one at some sizes."""
    if lane.refused_px is not None:
        return f"the network does not run at {lane.refused_px} pixels along {lane.axis}, which its graph promises"
    geometry, stride = lane.geometry, lane.geometry.stride
    small = geometry.accepted_size(1)
    for size in (small, small + stride, small + 2 * stride, lane.size, lane.size + 2 * stride):
        try:
            output = lane.run(result, np.ones((size, lane.breadth, result.channels), result.dtype))
        except EngineError:
            continue  # a border reflects no more than there is; a run over such an image reports it
        if output.shape[1] != geometry.output_size(size):
            promised = geometry.output_size(size)
            return f"{size} pixels along {lane.axis} give {output.shape[1]}, and its graph promises {promised}"
    return ""


def _own_sizes(lane: Lane, result: Bounded, plans: PlanCheck) -> str:
    """Return how images of other sizes differ, which by the claim the network takes unchanged."""
    others = lane.geometry.others or ()
    for other in _spread(others, MOST_SIZES):
        size = _next(lane.size, other)
        try:
            output = lane.run(result, np.ones((size, lane.breadth, result.channels), result.dtype))
        except EngineError as error:
            return f"the network refuses {size} pixels along {lane.axis}, which its graph promises: {error}"
        if output.shape[1] != other.output_size(size):
            promised = other.output_size(size)
            return f"{size} pixels along {lane.axis} give {output.shape[1]}, and its graph promises {promised}"
    for other in _spread([other for other in others if not other.one_pass], 2):
        found = plans.difference("tile", _extent(lane, _next(lane.size, other)), _tile(lane))
        if found:
            return found
    return ""


def _spread(others: Sequence[AxisGeometry], most: int) -> list[AxisGeometry]:
    """Return at most ``most`` of them, including the first and the last."""
    places = np.unique(np.linspace(0, len(others) - 1, min(len(others), most)).round().astype(int))
    return [others[place] for place in places]


def _next(size: int, other: AxisGeometry) -> int:
    """Return the next size of its remainder."""
    return max(other.least, size + (other.remainder - size) % other.stride)


def _halo(lane: Lane, scores: Bounded, *, masked: bool) -> tuple[str, bool]:
    """Return which box of the output changes with pixels beyond its halo, and whether any pixels beyond it matter.

    Where attention between both ends of the image is ``masked``, boxes at the ends are tried with finite pixels only: 0
    times infinity is not 0.
    """
    geometry, generator = lane.geometry, np.random.default_rng(1)
    image = noise(generator, (lane.size, lane.breadth, scores.channels), scores.dtype, 1.0)
    base, shows = lane.run(scores, image), False
    for start in _boxes(lane):
        stop = start + geometry.stride
        first, last = max(0, start - geometry.before), min(lane.size, stop + geometry.after)
        box = slice(geometry.output_position(start), min(geometry.output_position(stop), base.shape[1]))
        at_end = first == 0 or last == lane.size
        for changed in _others(image, slice(first, last), generator, infinite=not (masked and at_end)):
            found = lane.run(scores, changed)
            same = (found == base) | (np.isnan(found) & np.isnan(base))
            shows = shows or not same.all()
            if not same[:, box].all() and not _close(found[:, box], base[:, box]):
                pixels = f"pixels before {first} or from {last} on"
                return (
                    f"along {lane.axis}, {pixels} change the result of {start} to {stop}: the halo is too small",
                    True,
                )
    return "", shows


def _boxes(lane: Lane) -> list[int]:
    """Return where some boxes of one stride begin: at the beginning, in the middle, at the end."""
    stride = lane.geometry.stride
    last = (lane.size - lane.geometry.remainder) // stride - 1
    return sorted({0, lane.box.start, lane.box.start + stride, last * stride})


def _others(image: Array, inside: slice, generator: np.random.Generator, *, infinite: bool) -> Iterator[Array]:
    """Yield the image with other pixels outside: infinite ones, and large ones for operators that stop infinity."""
    if infinite and image.dtype.kind == "f":
        changed = np.full_like(image, np.inf)
        changed[inside] = image[inside]
        yield changed
    changed = noise(generator, image.shape, image.dtype, 100.0)
    changed[inside] = image[inside]
    yield changed


def _close(one: Array, other: Array) -> bool:
    """Return whether the same pixels of images of one size are equal up to a very small tolerance."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
        largest = np.nanmax(np.abs(other.astype(np.float64)), initial=0.0)
    return bool(((gap <= TOLERANCE * largest) | (one == other)).all())


def _strips(strips: StripModel, lanes: dict[Axis, Lane], plans: PlanCheck, result: Bounded, mac: float) -> str:
    """Return how strips differ from one pass: in one band, and in several where that is not too costly."""
    lane, across = lanes["y"], lanes["x"]
    rows = 2 * lane.geometry.stride
    least = round_up(strips.startup_rows, rows) + 3 * rows + max(strips.least_last_rows, rows)
    height = lane.geometry.accepted_size(max(lane.size, least))
    found = plans.difference("strip", (height, lane.breadth), (rows, lane.breadth))
    low = lane.geometry.accepted_size(least_rows(strips) + rows)
    if found or low * across.size * mac > MOST_BAND_MACS or not result.fits(low, across.size):
        return found
    return plans.difference("strip", (low, across.size), (rows, _tile(across)[1]))


def _other_strips(model: DeployedModel, lanes: dict[Axis, Lane], plans: PlanCheck) -> str:
    """Return how strips for images of other sizes differ: of the first and the last remainders."""
    geometry, rows = model.contract.geometry, 2 * lanes["y"].geometry.stride
    pairs = [(y, x) for y in _cut(geometry.y) for x in _cut(geometry.x)]
    for y, x in [*pairs[1:2], *pairs[2:][-1:]]:
        strips = model.strips_at(Geometry(y=y, x=x))
        if strips is None:
            continue
        least = round_up(strips.startup_rows, rows) + 2 * rows + strips.least_last_rows
        size = _next(max(lanes["y"].size, least), y), _next(lanes["y"].breadth, x)
        found = plans.difference("strip", size, (rows, size[1]))
        if found:
            return found
    return ""


def _cut(axis: AxisGeometry) -> list[AxisGeometry]:
    """Return the geometry for each remainder of sizes that can be cut, the base first."""
    return [axis, *(other for other in axis.others or () if not other.one_pass)]


def _extent(lane: Lane, size: int) -> tuple[int, int]:
    """Return (height, width) of an image of ``size`` along the lane."""
    return (size, lane.breadth) if lane.axis == "y" else (lane.breadth, size)


def _tile(lane: Lane) -> tuple[int, int]:
    """Return (height, width) of tiles that cut the lane into several."""
    axis = lane.geometry
    least = axis.margin_before + axis.margin_after + max(12, 2 * axis.stride)
    return _extent(lane, min(lane.size, axis.accepted_size(least)))
