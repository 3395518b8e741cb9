"""Measure a network's receptive field, and which shifts of the image shift its result, by running it.

Along one axis at a time, on images that are long along it and narrow across:

1. Find a step by which sizes may differ, and by which a shift of the image only shifts the result.
2. Find the farthest pixels that change a box of the output, in images of growing length. The network is not local if
   these are too far away in the longest image, or if far pixels change the first or the last rows of the output.
3. Find the period: the smallest shift among the divisors of the step that only shifts the result.
4. Find which sizes of other remainders modulo the period the network takes.

An influence that only some images have may not show in such runs, so nothing of this is proven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from exactile.errors import EngineError
from exactile.geometry import AxisGeometry, Geometry, Span, round_up
from exactile_converters.declared.feeding import as_fed
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.rules.barriers import CONTROL_FLOW
from exactile_converters.geometry.trace import ancestors
from exactile_converters.networks.network import Network
from exactile_converters.one_pass.at_size import exported_size, network_for
from exactile_converters.one_pass.refusal import OnePassError
from exactile_converters.plain_runs.claim import Axis
from exactile_converters.plain_runs.dependency import Lane, Runs, commutes, noise
from exactile_converters.plain_runs.difference import TOLERANCE
from exactile_converters.plain_runs.subject import Subject, private_copy, scores_of, value_named
from exactile_converters.probed.changes import Changes
from exactile_converters.probed.limited import Limited
from exactile_converters.probed.refusal import NotLocalError

LOOKED_AT_PX = 256
"""Height and width at which shapes are inferred."""

STEPS_PX = (64, 96, 112, 160, 224, 144)
"""Multiples of powers of two, of three, of window attention's 7, of 5 and of 9."""

ROOMS_PX = (128, 256, 512)
"""Distances in pixels from the box, on either side, up to which changes are tried, one after the other."""

NEAR = Fraction(3, 4)
"""Share of the room: if something farther away changes the box, more room is tried."""

SEEDS = (1, 2)

LEAST_MARGIN_PX = 8
MARGIN = Fraction(1, 4)
"""Margin added to the farthest pixel that was seen to matter, as a share of its distance."""

MOST_REMAINDERS = 64

USUAL_SECONDS = 120.0

AXES: tuple[Axis, Axis] = ("y", "x")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAxis:
    """One axis: ``before`` and ``after`` are the farthest pixels that change a box aligned to the ``period``.

    ``constants`` holds, by the remainder of accepted sizes modulo the period, the pixels that the result has beyond its
    share, ``size * scale``. ``breadth`` is a size along the axis on which it was run.
    """

    period: int
    before: int
    after: int
    scale: Fraction
    origin: Fraction
    constants: Mapping[int, Fraction]
    breadth: int

    @property
    def margin(self) -> int:
        """Return the pixels that tiles hold beyond what was seen to matter."""
        return max(LEAST_MARGIN_PX, -(-max(self.before, self.after) * MARGIN.numerator // MARGIN.denominator))

    @property
    def geometry(self) -> AxisGeometry:
        """Return the geometry, with the margin in the halo."""
        base = AxisGeometry(
            stride=self.period,
            before=self.before + self.margin,
            after=self.after + self.margin,
            scale=self.scale,
            origin=self.origin,
            size_constant=self.constants[0],
        )
        others = (replace(base, remainder=r, size_constant=c) for r, c in self.constants.items() if r)
        return replace(base, others=tuple(others))


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """What ``runs`` runs show of a network that no rule proves local."""

    y: LocalAxis
    x: LocalAxis
    runs: int

    @property
    def geometry(self) -> Geometry:
        return Geometry(y=self.y.geometry, x=self.x.geometry)

    @property
    def reach(self) -> int:
        """Return the distance in pixels, on any side, beyond which nothing was seen to matter."""
        return max(self.y.before, self.y.after, self.x.before, self.x.after)


def find_locality(network: Network, *, seconds: float = USUAL_SECONDS) -> Locality:
    """Run ``network``, which is not modified, for at most ``seconds``. Raises NotLocalError."""
    network = as_fed(network)
    subject, origin = _subject(network)
    limited = Limited(subject, network, seconds)
    refusals = []
    for step in STEPS_PX:
        try:
            y, x = (_Axis(limited, axis, step, origin[axis]).found() for axis in AXES)
        except _StepError as error:
            refusals.append(str(error))
            continue
        except EngineError as error:
            raise NotLocalError(f"a run failed: {error}") from error
        return Locality(y=y, x=x, runs=limited.count)
    raise NotLocalError(refusals[0])


def _subject(network: Network) -> tuple[Subject, Mapping[Label, Fraction]]:
    """Return what is run, up to the scores before the last activation, and where the result lies in the image."""
    if any(exported_size(network)):
        raise NotLocalError("it was exported at one size, and tiles have others")
    if any(node.op_type in CONTROL_FLOW and not node.domain for node in ancestors(network.model, network.result)):
        raise NotLocalError("it holds subgraphs, whose shapes are not known before they run")
    try:
        maps = network_for(network, (LOOKED_AT_PX, LOOKED_AT_PX)).maps
    except OnePassError as error:
        raise NotLocalError(str(error)) from error
    copy = private_copy(network)
    scores = value_named(copy, scores_of(copy, maps.features).name or "")
    feature = maps.features[scores.name or ""]
    if scores.dtype is not None:
        feature = replace(feature, dtype=scores.dtype.value)
    return Subject(copy, scores, feature), maps.origin


class _StepError(Exception):
    """The network refuses sizes that differ by a step, or a shift by it does not only shift the result."""


class _Axis:
    """Examines ``axis``, at sizes that are multiples of ``step``."""

    def __init__(self, subject: Runs, axis: Axis, step: int, origin: Fraction) -> None:
        self._subject, self._axis, self._step, self._origin = subject, axis, step, origin

    def found(self) -> LocalAxis:
        """Return the axis. Raises _StepError, NotLocalError."""
        scale, constant = self._growth()
        geometry = AxisGeometry(stride=self._step, before=0, after=0, scale=scale, size_constant=constant)
        lane, near, changes = self._room(geometry)
        period = self._period(lane)
        self._check_edges(lane, near)
        reaches = [changes.reach(near), Changes(self._subject, lane, SEEDS[1]).reach(near)]
        return LocalAxis(
            period=period,
            before=max(before for before, _ in reaches),
            after=max(after for _, after in reaches),
            scale=scale,
            origin=self._origin,
            constants={0: constant, **self._others(scale, period)},
            breadth=self._step,
        )

    def _growth(self) -> tuple[Fraction, Fraction]:
        sizes = [multiple * self._step for multiple in (2, 3, 4)]
        made = [self._output_rows(size) for size in sizes]
        if None in made:
            raise _StepError(f"it does not take images of {sizes[0]} and {sizes[1]} pixels along {self._axis}")
        first, second, third = (rows for rows in made if rows is not None)
        scale = Fraction(second - first, self._step)
        if scale <= 0 or third - second != second - first or (self._step * scale).denominator != 1:
            raise _StepError(f"its output does not grow evenly with the image along {self._axis}")
        return scale, first - sizes[0] * scale

    def _output_rows(self, rows: int) -> int | None:
        """Return the output rows of an image of ``rows``; None where it is refused."""
        image = np.ones((rows, self._step, self._subject.channels), self._subject.dtype)
        lane = Lane(
            axis=self._axis,
            geometry=AxisGeometry(stride=1, before=0, after=0),
            box=Span(0, rows),
            size=rows,
            breadth=self._step,
        )
        try:
            return int(lane.run(self._subject, image).shape[1])
        except EngineError:
            return None

    def _room(self, geometry: AxisGeometry) -> tuple[Lane, int, Changes]:
        """Return a lane with a box, and the distance beyond which no pixel changes the box. Raises NotLocalError."""
        near = 0
        for room in ROOMS_PX:
            start = round_up(room, self._step)
            near = int(start * NEAR)
            lane = Lane(
                axis=self._axis,
                geometry=geometry,
                box=Span(start, start + self._step),
                size=2 * (start + self._step),
                breadth=self._step,
            )
            changes = Changes(self._subject, lane, SEEDS[0])
            if not changes.show(slice(None)):
                raise NotLocalError("its output is the same whatever the image is")
            if not changes.beyond(near):
                return lane, near, changes
        raise NotLocalError(f"pixels more than {near} away change the result along {self._axis}")

    def _check_edges(self, lane: Lane, near: int) -> None:
        """Raise NotLocalError where the first or last rows depend on pixels that are farther away."""
        for start in (0, lane.size - self._step):
            edge = replace(lane, box=Span(start, start + self._step))
            if Changes(self._subject, edge, SEEDS[0]).beyond(near):
                raise NotLocalError(
                    f"pixels more than {near} away change the result at an edge of the image, along {self._axis}"
                )

    def _period(self, lane: Lane) -> int:
        shape = (lane.size + self._step, lane.breadth, self._subject.channels)
        images = [noise(np.random.default_rng(seed), shape, self._subject.dtype, 1.0) for seed in SEEDS]
        for shift in (number for number in range(1, self._step + 1) if self._step % number == 0):
            if all(commutes(self._subject, lane, image, shift, TOLERANCE) for image in images):
                return shift
        raise _StepError(f"a shift by {self._step} pixels along {self._axis} does more than shift the result")

    def _others(self, scale: Fraction, period: int) -> dict[int, Fraction]:
        """Return the constants by remainder modulo the period."""
        found = {}
        for remainder in range(1, period) if period <= MOST_REMAINDERS else ():
            sizes = [multiple * self._step + remainder for multiple in (2, 3)]
            made = [self._output_rows(size) for size in sizes]
            constants = {rows - size * scale for rows, size in zip(made, sizes, strict=True) if rows is not None}
            if None not in made and len(constants) == 1:
                found[remainder] = constants.pop()
        return found
