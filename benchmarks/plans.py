"""Compare the plan that ``auto`` takes with a sweep over plans and shapes.

``python -m benchmarks.plans [--case {small,8192}] [--networks unet-16 ...] [--sizes 512 2048] [--rounds 3] [--pairs 5]
[--minutes 4]``. Each run is a session of its own, its engine opened and closed, that segments an array of random
samples: one whole pass, square tiles, strips of several heights and band widths (none that computes more than 3
passes), and what ``auto`` takes without a limit and with 1 GiB beside what the process has. Images of more than 4096
pixels are not taken in one pass, and each shape is timed in one lane and in two. Runs take turns. Seconds are kept in
``benchmarks/results/plans-cells.json`` as they come, and a later call measures what is missing there; ``--minutes``
ends a call early. A plan that fits 1 GiB is not run again with that limit. Seconds are medians. The fastest of many is
partly the luckiest: it and the plan that auto takes now are run in turn again, ``--pairs`` times, and "auto by best" is
the median of the ratios of these pairs. With ``--tune SECONDS``, each network is tuned for so long first, and "none,
tuned" is what auto takes by that.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product

import numpy as np
from torch import nn

from benchmarks.harness.machine import machine
from benchmarks.harness.part import RESULTS, run_part
from benchmarks.harness.record import Record, Table
from benchmarks.networks import balanced, deployed, unet
from exactile.contract import DeployedModel
from exactile.errors import BudgetError, PlanError
from exactile.machine.memory import settled_resident_bytes
from exactile.plan.prediction import Plan, predicted_passes
from exactile.plan.strips import StripPlan
from exactile.planning import PlanName
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from models.fc_densenet import fc_densenet
from models.resnet_unet import ResNetUNet

CELLS = RESULTS / "plans-cells.json"
TILES = (256, 384, 512, 1024, 2048)
STRIPS = (64, 128, 256, 512)
BANDS = (1, 2, 4)
LIMIT_BYTES = 1 << 30
ANY_BYTES = 1 << 40
MOST_PASSES = 3.0
"""Plans that compute more, such as small tiles with a large halo, are left out."""

SMALL, LARGE = 512, 4096
LANES = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What is measured where options do not say otherwise."""

    networks: tuple[str, ...]
    sizes: tuple[int, ...]
    rounds: int
    pairs: int


COLUMNS = (
    "network", "pixels", "limit", "auto takes", "s|.2f", "MiB|.0f", "auto by best|.2f", "pairs", "best", "s|.2f",
    "MiB|.0f", "whole s|.2f", "best tiles s|.2f", "best strips s|.2f", "cells", "rounds",
)  # fmt: skip

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet-8": lambda: unet(8),
    "unet-16": lambda: unet(16),
    "unet-64": lambda: unet(64),
    "fc-densenet-56": lambda: balanced(fc_densenet(56, 3, 3)),
    "resnet-unet": lambda: balanced(ResNetUNet(3, 3)),
}
SWEEPS = {
    "small": Sweep(networks=tuple(NETWORKS), sizes=(512, 2048), rounds=3, pairs=5),
    "8192": Sweep(networks=("unet-8", "unet-16"), sizes=(8192,), rounds=1, pairs=1),
}


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """A plan and its shape: (height, width), or strip rows and band width; in so many lanes."""

    plan: PlanName
    height: int
    width: int
    lanes: int = 1

    @classmethod
    def of(cls, plan: Plan) -> Cell:
        if isinstance(plan, StripPlan):
            return cls("strip", plan.rows, plan.x.tile, plan.lanes)
        return cls("whole" if len(plan) == 1 else "tile", *plan.tile_shape, plan.lanes)

    def __str__(self) -> str:
        return f"{self.plan} {self.height}x{self.width}" + (f", {self.lanes} lanes" if self.lanes > 1 else "")


class Case:
    """A network and a square image of ``px`` pixels."""

    def __init__(self, model: DeployedModel, px: int, tuned: DeployedModel | None = None) -> None:
        self.model = model
        samples = np.random.default_rng(0).integers(0, 256, (px, px, model.contract.image.channels), np.uint8)
        self.source, self.px = ArraySource(samples), px
        free = Session(model)
        self.limited = Session(model, memory_bytes=settled_resident_bytes() + LIMIT_BYTES)
        sessions = {"none": free, "1 GiB": self.limited} | (
            {"none, tuned": Session(tuned)} if tuned is not None else {}
        )
        self.taken = {}
        for limit, session in sessions.items():
            with contextlib.suppress(BudgetError):
                self.taken[limit] = Cell.of(session.plan(self.source, ArraySink()).plan)
        sweep = [free] if px <= LARGE else [Session(model, lanes=lanes) for lanes in LANES]
        plans = [plan for session in sweep for plan in self._plans(session) if predicted_passes(plan) <= MOST_PASSES]
        self.cells = sorted({*self.taken.values(), *map(Cell.of, plans)})

    def _plans(self, session: Session) -> Iterator[Plan]:
        px, wide = self.px, self.px > LARGE
        shapes: list[tuple[PlanName, tuple[int, int] | None]] = [] if wide else [("whole", None)]
        shapes += [("tile", (side, side)) for side in (TILES[2:] if wide else TILES) if side < px]
        for rows, bands in product(STRIPS[1:3] if wide else STRIPS, BANDS[:1] if px <= SMALL else BANDS):
            if rows < px and session.has_strips:
                halo = 0 if bands == 1 else 256
                shapes.append(("strip", (rows, -(-px // bands // 64) * 64 + halo)))
        for plan, shape in shapes:
            with contextlib.suppress(PlanError):  # smaller than the halo, or too large for the memory
                yield session.plan(self.source, ArraySink(), plan=plan, tile=shape).plan

    def run(self, cell: Cell) -> float:
        session, shape = (
            Session(self.model, lanes=cell.lanes),
            None if cell.plan == "whole" else (cell.height, cell.width),
        )
        gc.collect()
        begin = time.perf_counter()
        session.segment(self.source, ArraySink(), plan=cell.plan, tile=shape)
        return time.perf_counter() - begin

    def memory(self, cell: Cell) -> tuple[float, bool]:
        """Return MiB that the cell takes beside the process, predicted, and whether that is within the limit."""
        shape = None if cell.plan == "whole" else (cell.height, cell.width)
        session = Session(self.model, lanes=cell.lanes, memory_bytes=ANY_BYTES)
        plan = session.plan(self.source, ArraySink(), plan=cell.plan, tile=shape).plan
        need = self.limited.memory_need(plan, self.source, ArraySink())
        return (need.needed_bytes - need.process_bytes) / 2**20, need.fits(self.limited.budget_bytes)


def key_of(name: str, px: int) -> str:
    return f"{name} {px}"


def sweep(options: argparse.Namespace) -> tuple[dict[str, Case], dict[str, dict[str, list[float]]]]:
    """Measure what is missing, round by round, until the time is up."""
    end = time.monotonic() + options.minutes * 60
    kept = json.loads(CELLS.read_text()) if CELLS.exists() and not options.quick else {}
    found: dict[str, dict[str, list[float]]] = kept.get("seconds", {})
    cases = {}
    for name in options.networks:
        model = deployed(NETWORKS[name](), name)
        tuned = replace(model, tuning=Session(model).tune(seconds=options.tune)) if options.tune else None
        for px in [SMALL] if options.quick else options.sizes:
            case = cases[key_of(name, px)] = Case(model, px, tuned)
            seconds = found.setdefault(key_of(name, px), {})
            for cell in case.cells:
                seconds.setdefault(str(cell), [])
            done = min(len(seconds[str(cell)]) for cell in case.cells)
            if done < options.rounds and time.monotonic() < end:
                case.run(case.cells[-1])  # code that is used for the first time
            for turn in range(done, options.rounds):
                for cell in case.cells:
                    if len(seconds[str(cell)]) > turn or time.monotonic() > end:
                        continue
                    taken = case.run(cell)
                    seconds[str(cell)].append(taken)
                    print(f"{name} {px}, round {turn + 1}: {cell}: {taken:.2f} s", file=sys.stderr, flush=True)
                    if not options.quick:
                        CELLS.write_text(json.dumps({**kept, "machine": machine(), "seconds": found}, indent=1) + "\n")
    return cases, found


class Duels:
    """Two plans of a case in turn, as often as ``pairs`` says, until the time is up; kept beside the sweep."""

    def __init__(self, pairs: int, minutes: float, *, keep: bool) -> None:
        self._pairs, self._keep = pairs, keep
        self._end = time.monotonic() + minutes * 60
        self._kept = json.loads(CELLS.read_text()) if CELLS.exists() and keep else {}
        self._found: dict[str, list[list[float]]] = self._kept.setdefault("duels", {})

    def ratios(self, key: str, case: Case, one: Cell, other: Cell) -> list[float]:
        """Return seconds of ``one`` by those of ``other``, pair by pair."""
        if one == other:
            return [1.0]
        found = self._found.setdefault(f"{key}: {one} / {other}", [])
        while len(found) < self._pairs and time.monotonic() < self._end:
            first, second = (one, other) if len(found) % 2 == 0 else (other, one)
            seconds = {first: case.run(first)}
            seconds[second] = case.run(second)
            found.append([seconds[one], seconds[other]])
            print(f"{key}: {one} {seconds[one]:.2f} s, {other} {seconds[other]:.2f} s", file=sys.stderr, flush=True)
            if self._keep:
                CELLS.write_text(json.dumps(self._kept, indent=1) + "\n")
        return [mine / others for mine, others in found]


def measure(options: argparse.Namespace) -> Iterator[Record]:
    given = {option: value for option, value in vars(options).items() if value is not None}
    options = argparse.Namespace(**asdict(SWEEPS[options.case]) | given)
    cases, found = sweep(options)
    duels = Duels(options.pairs, options.minutes, keep=not options.quick)
    table = Table(title="auto beside the best of the sweep", columns=COLUMNS)
    for key, case in cases.items():
        rounds = min((len(found[key][str(cell)]) for cell in case.cells), default=0)
        if not rounds:  # plans are compared within rounds in which all of them ran
            continue
        medians = {cell: statistics.median(found[key][str(cell)][:rounds]) for cell in case.cells}
        memory = {cell: case.memory(cell) for cell in medians}
        for limit, taken in case.taken.items():
            fitting = {cell: s for cell, s in medians.items() if limit != "1 GiB" or memory[cell][1]}
            if taken not in fitting:
                continue
            best = min(fitting, key=fitting.__getitem__)
            ratios = duels.ratios(key, case, taken, best)
            by_plan = [
                min((s for cell, s in fitting.items() if cell.plan == plan), default=None)
                for plan in ("whole", "tile", "strip")
            ]
            name, px = key.split()
            table.add(
                name, int(px), limit, str(taken), fitting[taken], memory[taken][0],
                statistics.median(ratios) if ratios else None, len(ratios) if taken != best else None,
                str(best), fitting[best], memory[best][0], *by_plan, len(fitting), rounds,
            )  # fmt: skip
    yield Record(
        part="plans" if options.case == "small" else f"plans-{options.case}",
        module="plans",
        arguments="" if options.case == "small" else f"--case {options.case}",
        title="Plans: auto beside a sweep",
        tables=[table],
        remarks=__doc__.split("\n\n", 1)[1].strip(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(SWEEPS), default="small")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="PX")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--minutes", type=float, default=600, help="for the sweep, and once more for the pairs")
    parser.add_argument("--tune", type=float, default=0, metavar="SECONDS")
    run_part(measure, parser)


if __name__ == "__main__":
    main()
