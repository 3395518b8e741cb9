"""Probe dependencies: compare claimed halo and stride with what running the network shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from exactile.contract import DeployedModel
from exactile.errors import ModelError
from exactile.geometry import Geometry, Span
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.networks.network import Network
from exactile_converters.plain_runs.bounded import Bounded
from exactile_converters.plain_runs.claim import Axis, AxisProbe, IntegerProbe, Method, SideProbe, Verdict
from exactile_converters.plain_runs.dependency import (
    BREADTH_PX,
    Lane,
    Reach,
    Runs,
    commutes,
    impulse_spans,
    noise,
    phases_of,
    reach_of,
    repeats_after,
    visible_reach,
)
from exactile_converters.plain_runs.subject import Subject, private_copy, value_named
from exactile_converters.verify.dequantized import dequantize
from exactile_converters.verify.integer_copy import set_integer_weights
from exactile_converters.verify.integer_probe import Ones, integer_spans, probe_integers
from exactile_converters.verify.meter import Progress
from exactile_converters.verify.open_paths import open_all_paths

COMMUTATION_TOLERANCE = 1e-4
"""Floating-point sums at shifted pixels may have another order; a wrong alignment is far beyond this."""

FINITE_MARKERS = (0.3, 0.8)
"""Powers of the largest finite value: two magnitudes, both far above what rounding hides."""

LANE_RUNS = 24
"""Runs for an axis, in addition to one for each row of the box and for each bisection step: images of ones, noise,
etc."""

PLACED = "operators depend on the position in the image: a shift of the image does more than shift the output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """The network with its own weights, and copies in which no influence can vanish: positive and integer weights."""

    real: Runs
    opened: Runs
    integers: Runs | None = None

    @classmethod
    def of(cls, network: Network, scores: str, feature: FeatureMap) -> Subjects:
        """Make all of them for the tensor named ``scores``; ``network`` is not modified."""
        made = [_copy(network, scores, feature, change) for change in (_nothing, _opened)]
        try:
            integers = _copy(network, scores, feature, _of_integers)
        except ModelError:  # integer operators do not take what is left without their quantisation
            integers = None
        return cls(real=made[0], opened=made[1], integers=integers)

    def within(self, model: DeployedModel, allowed_bytes: int, ran: Callable[[int], None]) -> Subjects:
        """Return the same, within ``allowed_bytes`` of resident memory of the process; see ``Bounded``."""
        integers = self.integers and Bounded(self.integers, model, allowed_bytes, ran)
        real, opened = (Bounded(one, model, allowed_bytes, ran) for one in (self.real, self.opened))
        return Subjects(real=real, opened=opened, integers=integers)


def _copy(network: Network, scores: str, feature: FeatureMap, change: Callable[[Network], None]) -> Subject:
    copy = private_copy(network)
    value_named(copy, scores)
    change(copy)
    output = value_named(copy, scores)
    return Subject(copy, output, replace(feature, dtype=output.dtype.value) if output.dtype is not None else feature)


def _nothing(_network: Network) -> None:
    """Keep the weights."""


def _opened(network: Network) -> None:
    dequantize(network)
    open_all_paths(network)


def _of_integers(network: Network) -> None:
    dequantize(network)
    set_integer_weights(network)


def probe_pixels(axis: Axis, claimed: Geometry) -> int:
    """Return about how many pixels ``probe_axis`` computes."""
    geometry, other = (claimed.y, claimed.x) if axis == "y" else (claimed.x, claimed.y)
    size = Lane.size_for(geometry)
    rows = 2 * geometry.stride
    commuting = 0 if geometry.placed else rows
    runs = LANE_RUNS + 2 * size.bit_length() + 2 * rows + commuting
    return runs * size * other.accepted_size(max(BREADTH_PX, other.stride))


def probe_axis(axis: Axis, subjects: Subjects, claimed: Geometry, *, seed: int, progress: Progress) -> AxisProbe:
    """Probe ``axis`` of the claimed geometry."""
    geometry, other = (claimed.y, claimed.x) if axis == "y" else (claimed.x, claimed.y)
    lane = Lane.of(axis, geometry, other, subjects.real)
    generator = np.random.default_rng(seed)
    visible = visible_reach(subjects.real, lane, generator)
    spans, note = _structure(subjects.opened, lane, progress)
    method: Method = "poison" if spans else "finite changes"
    reach = _farther(reach_of(spans, lane), visible) if spans else visible
    ones = Ones.of(subjects.integers, lane) if subjects.integers is not None else None
    integer = integer_spans(ones.integers, lane) if ones is not None else []
    progress(f"integer weights along {axis}", 1, 2)
    integers = reach_of(integer, lane) if integer else None
    if integers is not None:
        reach = _farther(reach, integers)
    tried = probe_integers(ones, integer) if ones is not None and integer else None
    progress(f"integer weights along {axis}", 2, 2)
    not_integer = _not_integer(tried, subjects)
    shifts = _commuting(subjects.real, lane, generator, progress) if not geometry.placed else ()
    if spans:
        shifts = tuple(shift for shift in shifts if repeats_after(spans, lane, shift))
    return AxisProbe(
        axis=axis,
        method=method,
        note="; ".join(filter(None, (note, _refused(lane), PLACED if geometry.placed else "", not_integer))),
        stride=geometry.stride,
        stride_verdict="sufficient" if geometry.placed else _stride_verdict(geometry.stride, shifts, method),
        commuting_shifts=shifts,
        sides=_sides(lane, reach, visible, integers, method),
        phases=phases_of(spans, lane) if spans else (),
        integers=tried,
        refused_px=lane.refused_px,
    )


def _refused(lane: Lane) -> str:
    if lane.refused_px is None:
        return ""
    return f"the network does not run at {lane.refused_px} pixels, a size that the claim accepts"


def _not_integer(tried: IntegerProbe | None, subjects: Subjects) -> str:
    """Return what integer weights could not decide."""
    if subjects.integers is None:
        return "the network cannot have integer weights: the verdict relies on poisoned pixels"
    if tried is None:
        return "integers do not pass through the network: the verdict relies on poisoned pixels"
    if tried.idle:
        return "integer weights do not show all that the claim counts: there the verdict relies on poisoned pixels"
    return ""


def _structure(opened: Runs, lane: Lane, progress: Progress) -> tuple[list[Span | None], str]:
    """Return the effect of each row in the opened network, by infinity where it can decide; empty if nothing can."""
    stage = f"dependencies along {lane.axis}"

    def spans(marker: float) -> list[Span | None]:
        found = []
        for span in impulse_spans(opened, lane, marker):
            found.append(span)
            progress(stage, len(found), lane.box.length)
        return found if any(found) else []

    if opened.dtype.kind != "f":
        return [], f"the network takes {opened.dtype}, which holds no infinity: large finite changes were made instead"
    poisoned = spans(np.inf)
    if not poisoned:
        return [], "infinity does not pass through the network: large finite changes were made instead"
    reach = reach_of(poisoned, lane)
    if reach.before <= lane.geometry.before and reach.after <= lane.geometry.after:
        return poisoned, ""
    # Infinity times a tap of weight 0 is not 0. Huge finite values distinguish that from an influence, unless they fade
    # on their way: then it matters how huge they are.
    large, huge = (spans(float(np.finfo(opened.dtype).max) ** power) for power in FINITE_MARKERS)
    if not huge or large != huge or huge == poisoned:
        return poisoned, ""
    return huge, "taps of weight 0 pass infinity on but no finite value: huge finite values were used instead"


def _farther(one: Reach, other: Reach) -> Reach:
    return Reach(
        before=max(one.before, other.before),
        after=max(one.after, other.after),
        before_cut=one.before_cut,
        after_cut=one.after_cut,
    )


def _sides(
    lane: Lane, reach: Reach, visible: Reach, integers: Reach | None, method: Method
) -> tuple[SideProbe, SideProbe]:
    geometry = lane.geometry
    # Reaches count from the aligned input box, halos from where the output lies: the same for most networks.
    shift_before, shift_after = geometry.halo_before - geometry.before, geometry.halo_after - geometry.after
    before = SideProbe(
        side="top" if lane.axis == "y" else "left",
        claimed_px=geometry.halo_before,
        measured_px=max(0, reach.before + shift_before),
        at_least=reach.before_cut,
        visible_px=max(0, visible.before + shift_before),
        integer_px=max(0, integers.before + shift_before) if integers is not None else None,
        verdict=_verdict(geometry.before, reach.before, method),
    )
    after = SideProbe(
        side="bottom" if lane.axis == "y" else "right",
        claimed_px=geometry.halo_after,
        measured_px=max(0, reach.after + shift_after),
        at_least=reach.after_cut,
        visible_px=max(0, visible.after + shift_after),
        integer_px=max(0, integers.after + shift_after) if integers is not None else None,
        verdict=_verdict(geometry.after, reach.after, method),
    )
    return before, after


def _verdict(claimed: int, measured: int, method: Method) -> Verdict:
    if measured > claimed:
        return "TOO SMALL"
    if measured == claimed:
        return "exact"
    return "larger than needed" if method == "poison" else "sufficient"


def _commuting(real: Runs, lane: Lane, generator: np.random.Generator, progress: Progress) -> tuple[int, ...]:
    stride = lane.geometry.stride
    image = noise(generator, (lane.size + stride, lane.breadth, real.channels), real.dtype, 1.0)
    found = []
    for shift in range(1, stride + 1):
        if commutes(real, lane, image, shift, COMMUTATION_TOLERANCE):
            found.append(shift)
        progress(f"shifts along {lane.axis}", shift, stride)
    return tuple(found)


def _stride_verdict(stride: int, shifts: tuple[int, ...], method: Method) -> Verdict:
    if stride not in shifts:
        return "TOO SMALL"
    if min(shifts) == stride:
        return "exact"
    return "larger than needed" if method == "poison" else "sufficient"
