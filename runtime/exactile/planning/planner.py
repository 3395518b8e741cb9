"""Plan a run of one image within the memory budget, and predict what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from exactile.contract import DeployedModel
from exactile.errors import BudgetError, DeviceMemoryError
from exactile.image_statistics.measure import measuring_bytes
from exactile.kept_maps.store import maps_on_disk, part_bytes
from exactile.pipeline.staging import read_plan
from exactile.plan.border import Border
from exactile.plan.budget import MemoryNeed, axis_candidates, least_budget, slot_bytes
from exactile.plan.choice import MOST_BANDS, Choice, PlanSearch, strip_plan
from exactile.plan.engine_memory import ONNX_RUNTIME_MEMORY, EngineMemory
from exactile.plan.lanes import LaneChoice, lane_choice
from exactile.plan.prediction import Plan, predicted_passes
from exactile.plan.speed import LARGE_BYTES, Speed
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import AxisDomain, TilePlan
from exactile.planning.fit import check_label, check_source
from exactile.planning.one_pass import check_one_pass, pass_size, reason, refused_tiles
from exactile.planning.result import result_spec
from exactile.planning.speed import predicted_speed
from exactile.planning.wish import Wish
from exactile.processors.planning import DevicePlanner
from exactile.processors.protocol import DeviceSpace
from exactile.sinks.protocol import ResultSpec, SavingSink, Sink, WritePlan
from exactile.sources.protocol import DecodedInParts, DecodedWhole, Source

_UNIT = {"whole": "pass", "tile": "tile", "strip": "strip"}

PROCESS_MARGIN_BYTES = 8 << 20
"""Thread stacks, code that is used for the first time, allocator slack and the interpreter's growth in a run."""

PASSES_MARGIN_BYTES = 32 << 20
"""Bytes that engines opened one after the other leave behind."""

LITTLE = 1 / 64
"""Fraction of the memory budget: images of one size whose plan needs no more than this more or less are not planned
again.
"""

SKIPPING_TILE_PX = 1024
"""Edge of tiles when background is skipped: larger ones are hardly ever empty."""


class Planner:
    """Plans for one model within ``budget_bytes`` of resident memory, of which ``process_bytes`` are in use already.

    With ``space``, plans for GPUs, within its limits. With ``engine_stays``, engines stay open for further runs. Maps
    that are kept between passes take ``kept_bytes`` more. On a CPU, the network may use so many ``threads``, in so many
    ``lanes`` unless a wish says otherwise, or for as many as ``images`` concurrent images that are each one tile.
    ``engine_memory`` is the memory of an engine, ``other_engine`` the name of one that is not ONNX Runtime. Of its
    attributes, ``used_bytes`` are those in use, ``process_bytes`` those with kept maps and what passes leave behind.
    """

    def __init__(
        self,
        model: DeployedModel,
        *,
        budget_bytes: int,
        process_bytes: int,
        space: DeviceSpace | None = None,
        engine_stays: bool = False,
        kept_bytes: int = 0,
        threads: int = 1,
        lanes: int | None = None,
        images: int = 1,
        engine_memory: EngineMemory = ONNX_RUNTIME_MEMORY,
        other_engine: str = "",
    ) -> None:
        self._engine_memory, self._other_engine = engine_memory, other_engine
        self.threads, self._lanes, self._images = threads, lanes, images
        self._engine_stays = engine_stays
        self._devices = DevicePlanner(model, space) if space is not None else None
        self._model = model
        self._contract = model.contract
        self.budget_bytes = budget_bytes
        self.used_bytes = process_bytes
        self.process_bytes = process_bytes + kept_bytes + (PASSES_MARGIN_BYTES if model.levels else 0)
        self.kept_bytes = kept_bytes
        self._known: _Known | None = None
        self._on_disk: dict[tuple[int, int], frozenset[str]] = {}

    def refuse(self, plan: Plan, need: MemoryNeed, error: DeviceMemoryError) -> None:
        """Choose something smaller than ``plan`` from now on. Raises the error if there is nothing smaller."""
        if self._devices is None:
            raise error
        self._known = None
        self._devices.refuse(plan, need, error)

    def may_try(self, wish: Wish) -> bool:
        """Return whether the fastest plan can be found by a trial: the choice is open, and nothing must be known
        before.
        """
        free = wish.plan == "auto" and not (wish.tile or wish.background or wish.tolerance)
        return free and self.may_time and not self._engine_stays

    @property
    def may_time(self) -> bool:
        """Whether tiles and strips can be timed on synthetic samples, on a CPU."""
        contract, model = self._contract, self._model
        plain = not (contract.obstacles or model.levels or model.reads or contract.image.statistics)
        return plain and self._devices is None

    def choose(self, source: Source, sink: Sink, wish: Wish) -> Choice:
        """Return the plan for ``source``. Raises ChannelError, PlanError, and BudgetError if nothing
        fits the budget.
        """
        self.check_source(source)
        background = wish.background
        self.lane_choice(wish)
        if self._contract.obstacles:
            return self._one_pass(source, sink, wish)
        if background is None or wish.plan == "whole" or wish.tile is not None:
            return self._choose(source, sink, wish)
        check_label(self._contract.result, background.label, "background")
        if self._devices is not None and self._devices.space.engines is not None:
            return self._choose(source, sink, replace(wish, plan="tile"))
        large = self._choose(source, sink, replace(wish, plan="tile"))
        small = replace(wish, plan="tile", tile=self._skipping_tile(large.plan.tile_shape))
        try:
            return replace(self._choose(source, sink, small), reason="small enough that background can be skipped")
        except BudgetError:  # the source or the sink holds more for these
            return large

    def _one_pass(self, source: Source, sink: Sink, wish: Wish) -> Choice:
        """Return the only plan of a model with obstacles to tiling."""
        contract, image = self._contract, (source.height, source.width)
        check_one_pass(contract, image, plan=wish.plan, tile=wish.tile, border=wish.border, background=wish.background)
        plan = TilePlan.of(contract.geometry, image, wish.border, pass_size(contract))
        need = self.memory_need(plan, source, sink)
        if not need.fits(self.budget_bytes):
            raise BudgetError(
                f"one pass over {plan.y.tile} x {plan.x.tile} pixels {need.shortage(self.budget_bytes)}. "
                f"It would take less in tiles, but {refused_tiles(contract)}"
            )
        return Choice(plan=plan, passes=predicted_passes(plan), reason=reason(contract))

    def _skipping_tile(self, largest: tuple[int, int]) -> tuple[int, int]:
        axes = self._contract.geometry.y, self._contract.geometry.x
        height, width = (
            min(side, axis.accepted_size(max(SKIPPING_TILE_PX, 8 * (axis.margin_before + axis.margin_after))))
            for side, axis in zip(largest, axes, strict=True)
        )
        return height, width

    def _choose(self, source: Source, sink: Sink, wish: Wish) -> Choice:
        image = (source.height, source.width)

        def measure(candidate: Plan) -> MemoryNeed:
            return self.memory_need(candidate, source, sink, apart_bytes=wish.apart_bytes)

        asked, known = replace(wish, background=None), self._known
        same = known is not None and (known.image, known.wish) == (image, asked)
        if known is not None and same and self._as_before(measure(known.choice.plan), known.need):
            return known.choice
        choice = self._chosen(image, wish, measure)
        self._known = _Known(image=image, wish=asked, choice=choice, need=measure(choice.plan))
        return choice

    def _as_before(self, need: MemoryNeed, known: MemoryNeed) -> bool:
        """Return whether a plan needs about as much as before: compressed chunks differ from image to image."""
        here, before = (one.needed_bytes + one.cache_bytes + one.spare_bytes for one in (need, known))
        return need.fits(self.budget_bytes) and abs(here - before) <= self.budget_bytes * LITTLE

    def _chosen(self, image: tuple[int, int], wish: Wish, measure: Callable[[Plan], MemoryNeed]) -> Choice:
        devices = self._devices
        if devices is None:
            return self._choose_by(image, wish, measure)
        if devices.space.engines is not None:
            return devices.choose_built(image, wish.border, self.budget_bytes, measure, plan=wish.plan, tile=wish.tile)
        return devices.explained(lambda suited: self._choose_by(image, wish, suited), measure)

    def _choose_by(self, image: tuple[int, int], wish: Wish, measure: Callable[[Plan], MemoryNeed]) -> Choice:
        search = PlanSearch(
            model=self._model,
            image=image,
            border=wish.border,
            budget_bytes=self.budget_bytes,
            measure=measure,
            lanes=self.lane_choice(wish),
            speed=self.speed(image),
        )
        if wish.plan == "auto" and wish.tile is None:
            return search.best()
        chosen = self._asked(search, wish)
        need = measure(chosen)
        if not need.fits(self.budget_bytes):
            height, width = chosen.tile_shape
            raise BudgetError(
                f"a {_UNIT[chosen.name]} of {height}x{width} {need.shortage(self.budget_bytes)}, "
                "or leave the choice to --plan auto",
                least_bytes=least_budget(need),
            )
        return Choice(plan=chosen, passes=predicted_passes(chosen), reason="as requested")

    def _asked(self, search: PlanSearch, wish: Wish) -> Plan:
        if wish.tile is None and wish.plan != "whole":
            return search.strips() if wish.plan == "strip" else search.tiles()
        return search.shaped(self._shaped(search.image, wish))

    def _shaped(self, image: tuple[int, int], wish: Wish) -> Plan:
        """Return the plan whose shape is given, in one lane."""
        geometry, border = self._contract.geometry, wish.border
        if wish.plan == "whole":
            domains = AxisDomain.of(geometry.y, image[0], border), AxisDomain.of(geometry.x, image[1], border)
            return TilePlan.of(geometry, image, border, (domains[0].size, domains[1].size))
        assert wish.tile is not None
        if wish.plan == "strip":
            return strip_plan(self._model, image, border, rows=wish.tile[0], band=wish.tile[1])
        return TilePlan.of(geometry, image, border, wish.tile)

    def lane_choice(self, wish: Wish) -> LaneChoice:
        """Return the numbers of lanes to choose from. Raises OptionError if the requested one is impossible."""
        asked = wish.lanes or self._lanes
        return lane_choice(self._model, asked, threads=self.threads, on_gpu=self._devices is not None)

    def memory_need(self, plan: Plan, source: Source, sink: Sink, *, apart_bytes: int = 0) -> MemoryNeed:
        """Return the predicted peak memory of running ``plan``, by purpose; ``apart_bytes`` as in ``Wish``."""
        reads, spec = read_plan(plan), self.result_spec(plan, source)
        spare_bytes = sink.spare_bytes(spec) if isinstance(sink, SavingSink) else 0
        decoding_bytes = source.decoding_bytes(reads) if isinstance(source, DecodedInParts) else 0
        if apart_bytes and not self._engine_stays:  # code and tables of the old plan stay
            apart_bytes += self._engine_memory.weights(self._contract.memory.weights_bytes)
        need = MemoryNeed(
            process_bytes=self.process_bytes + PROCESS_MARGIN_BYTES,
            weights_bytes=0,
            activation_bytes=0,
            buffer_bytes=0,
            sink_bytes=sink.buffer_bytes(spec, _write_plan(plan)) - spare_bytes,
            cache_bytes=max(0, source.cache_bytes(reads) - decoding_bytes),
            source_bytes=source.held_bytes if isinstance(source, DecodedWhole) else 0,
            decoding_bytes=decoding_bytes,
            apart_bytes=max(apart_bytes, self._measuring_bytes(source)),
            engine_stays=self._engine_stays,
            spare_bytes=spare_bytes,
        )
        return self._host_need(plan, need) if self._devices is None else self._devices.need(plan, need)

    def speed(self, image: tuple[int, int]) -> Speed:
        """Return the speed by which times of plans are predicted, for an image of (height, width)."""
        if self._devices is not None:
            return Speed(threads=self.threads)
        return predicted_speed(
            self._model,
            image,
            threads=self.threads,
            other_engine=self._other_engine,
            engine_stays=self._engine_stays,
            left_bytes=self._left_bytes,
        )

    @property
    def _left_bytes(self) -> int:
        return self.budget_bytes - self.process_bytes - PROCESS_MARGIN_BYTES

    def side_by_side(self, plan: Plan, need: MemoryNeed) -> MemoryNeed:
        """Return ``need``, or that of as many concurrent runs of ``plan`` as fit, each with a share of the threads.

        They are runs of small images: one tile each, and not so many that their maps get slower.
        """
        one_tile = isinstance(plan, TilePlan) and len(plan) == plan.lanes == 1
        plain = self._devices is None and not (self._model.reads or self._contract.obstacles or need.apart_bytes)
        for runs in range(min(self._images, self.threads) if one_tile and plain else 1, 1, -1):
            together = need.times(runs)
            if together.activation_bytes <= LARGE_BYTES and together.fits(self.budget_bytes):
                return together
        return need

    def _measuring_bytes(self, source: Source) -> int:
        """Return the bytes for finding statistics of the whole image, beside the process."""
        return measuring_bytes(source) if self._contract.image.statistics is not None else 0

    def measuring_cache(self, source: Source) -> int:
        """Return the bytes of decoded chunks that may be kept while statistics are found."""
        memory = self._engine_memory.weights(self._contract.memory.weights_bytes) if self._engine_stays else 0
        used = self.process_bytes + PROCESS_MARGIN_BYTES + memory + self._measuring_bytes(source)
        return max(0, self.budget_bytes - used)

    def _host_need(self, plan: Plan, need: MemoryNeed) -> MemoryNeed:
        memory = self._model.at(plan.geometry).contract.memory
        activations, carries = memory.activation_bytes(*plan.tile_shape), 0
        weights_bytes = memory.weights_bytes
        if isinstance(plan, StripPlan):
            strips = plan.strips
            runs = [(strips.graphs[role].memory, rows) for role, rows in plan.y.highest.items()]
            activations = max(run.activation_bytes(rows, plan.x.tile) for run, rows in runs)
            weights_bytes = max(run.weights_bytes for run, _ in runs)
            carries = 2 * plan.bands * strips.carry_bytes(plan.x.tile)
        # Each engine keeps its own copy of the weights, in its own layout.
        return replace(
            need,
            weights_bytes=plan.lanes * self._engine_memory.weights(weights_bytes),
            activation_bytes=plan.lanes * self._engine_memory.activations(activations),
            buffer_bytes=slot_bytes(self._contract, plan) + carries + self._part_bytes(plan),
        )

    def _part_bytes(self, plan: Plan) -> int:
        """Return the bytes of the parts of kept maps that the pass of the result reads."""
        reads = self._model.reads
        return part_bytes(reads, plan, self.maps_on_disk(plan.y.domain.size, plan.x.domain.size)) if reads else 0

    def maps_on_disk(self, height: int, width: int) -> frozenset[str]:
        """Return the kept maps that are in scratch files, by output, if the network runs over so many pixels."""
        size = height, width
        if size not in self._on_disk:
            self._on_disk[size] = maps_on_disk(self._model, size, self.kept_bytes)
        return self._on_disk[size]

    def widest_band(self, source: Source, sink: Sink, rows: int, border: Border) -> Plan:
        """Return strips of ``rows`` rows in as few bands as fit the budget."""
        domain = AxisDomain.of(self._contract.geometry.x, source.width, border)
        shortage = "do not fit"
        for band, _count in axis_candidates(domain)[:MOST_BANDS]:
            plan = strip_plan(self._model, (source.height, source.width), border, rows=rows, band=band)
            need = self.memory_need(plan, source, sink)
            if need.fits(self.budget_bytes):
                return plan
            shortage = need.shortage(self.budget_bytes)
        raise BudgetError(f"strips of {rows} rows {shortage}, or use lower strips")

    def save(self, plan: Plan, source: Source, sink: Sink, need: MemoryNeed) -> None:
        """Make ``sink`` do without the memory that is not left for it."""
        if isinstance(sink, SavingSink):
            spared_bytes = need.spare_bytes - need.granted_spare(self.budget_bytes)
            sink.save(self.result_spec(plan, source), spared_bytes)

    def result_spec(self, plan: Plan, source: Source) -> ResultSpec:
        """Return the specification of the result of ``plan`` for ``source``."""
        return result_spec(self._contract, plan, source)

    def check_source(self, source: Source) -> None:
        """Raise ChannelError and PlanError if the image does not fit the model."""
        check_source(self._contract.image, source)

    def check_label(self, label: int, of: str) -> None:
        """Raise OptionError if the result has no labels, or ``label``, that of ``of``, is not one of them."""
        check_label(self._contract.result, label, of)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """The last choice. An image of the same size whose plan takes about the same memory gets the same.

    Choosing takes as long as computing a small image.
    """

    image: tuple[int, int]
    wish: Wish
    choice: Choice
    need: MemoryNeed


def _write_plan(plan: Plan) -> WritePlan:
    return WritePlan(rows=tuple(zor for zor in plan.y.zors if zor.length), columns=plan.x.zors)
