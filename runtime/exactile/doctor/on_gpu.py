"""Run the small networks on a GPU: each engine, in tiles and in strips, compared with the CPU; and
measure the overlap.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exactile.contract import DeployedModel
from exactile.contract.built_engine import Backend
from exactile.doctor.converter import MissingConverterError, with_small_engines
from exactile.doctor.finding import Finding, Status, Telling, of_error
from exactile.doctor.overlap import STREAMS, Overlap, overlap_of
from exactile.doctor.small_network import Array, Difference, Ran, difference, noise_image, open_small, run
from exactile.errors import ExactileError
from exactile.planning import PlanName

GROUP, OVERLAP = "results", "overlap"
PLANS: dict[PlanName, str] = {"tile": "tiles", "strip": "strips"}
PRECISIONS = ("fp32", "fp16")
LABELS_TOLERATED = {"fp32": 0.0, "fp16": 0.05}
"""Fraction of labels that may differ from the CPU's: none for the network of integers in FP32."""

SCORES_TOLERATED = {"fp32": 1e-3, "fp16": 0.05}
"""Largest difference of scores, relative to the largest score."""

HIDDEN_EXPECTED = 0.3
COPIES_THAT_MATTER = 0.1
"""Time of copies, relative to the network's, from which on it is worth hiding."""


def check_onnx_runtime(telling: Telling, arguments: Mapping[str, Any]) -> None:
    """Check ONNX Runtime on ``device``."""
    models = {name: open_small(name).model for name in ("labels", "scores")}
    _Comparison(telling, arguments["device"], "onnxruntime", "fp32", models).run()


def check_tensorrt_engine(telling: Telling, arguments: Mapping[str, Any]) -> None:
    """Check engines of ``backend`` in ``precision`` for a GPU of ``compute_capability``, built here, on ``device``."""
    backend: Backend = arguments["backend"]
    device, precision, (major, minor) = (arguments[key] for key in ("device", "precision", "compute_capability"))
    check = f"{device} {backend}:{precision}"
    with tempfile.TemporaryDirectory(prefix="exactile-doctor-") as folder:
        telling.doing(f"building small engines by {backend} in {precision}")
        try:
            models = with_small_engines(Path(folder), backend, precision, (major, minor))
        except MissingConverterError as error:
            telling.found(_not_tried(check, backend, error))
        except ExactileError as error:
            telling.found(of_error(GROUP, check, error, status="warning"))
        else:
            _Comparison(telling, device, backend, precision, models).run()


@dataclass(slots=True)
class _Comparison:
    """One engine on one GPU."""

    telling: Telling
    device: str
    engine: str
    precision: str
    models: Mapping[str, DeployedModel]

    def run(self) -> None:
        image = noise_image()
        self.telling.doing("running the small networks on the CPU")
        expected = {name: run(model, image, plan="whole") for name, model in self.models.items()}
        for plan, pieces in PLANS.items():
            self.telling.doing(f"running the small networks on {self.device} with {self._name()} in {pieces}")
            try:
                ran = {name: self._run(name, image, plan) for name in self.models}
            except ExactileError as error:
                self.telling.found(of_error(GROUP, self._check(plan), error))
                continue
            found = {name: difference(expected[name].result, ran[name].result) for name in self.models}
            self.telling.found(self._compared(plan, found, expected["labels"], ran["labels"]))
            measured = overlap_of(ran["labels"].spans)
            if measured is not None:
                self.telling.found(_overlap(self._check(plan), measured))

    def _run(self, name: str, image: Array, plan: PlanName) -> Ran:
        engine = self.engine if self.engine == "onnxruntime" else self._name()
        return run(self.models[name], image, plan=plan, device=self.device, engine=engine)

    def _name(self) -> str:
        return self.engine if self.engine == "onnxruntime" else f"{self.engine}:{self.precision}"

    def _check(self, plan: PlanName) -> str:
        return f"{self.device} {self._name()} {PLANS[plan]}"

    def _compared(self, plan: PlanName, found: Mapping[str, Difference], cpu: Ran, gpu: Ran) -> Finding:
        labels, scores = found["labels"], found["scores"]
        speed = cpu.seconds / max(gpu.seconds, 1e-9)
        right = (
            labels.differing <= LABELS_TOLERATED[self.precision] * labels.pixels
            and scores.relative <= SCORES_TOLERATED[self.precision]
        )
        status: Status = "ok" if right else "failed"
        remedy = "" if right else "do not use this engine: update the driver and the engine's package, and report it."
        says = (
            f"{gpu.processor}: {_labels(labels)}; scores differ by at most {scores.max_abs:.2g}, of values up to "
            f"{scores.largest:.3g}; {speed:.1f} times as fast as the CPU ({gpu.seconds:.3f} s, {cpu.seconds:.3f} s)."
        )
        facts = {
            "processor": gpu.processor,
            "plan": plan,
            "precision": self.precision,
            "pixels": labels.pixels,
            "differing_labels": labels.differing,
            "differing_labels_of_scores": scores.differing,
            "largest_difference_of_scores": _json_number(scores.max_abs),
            "largest_score": scores.largest,
            "seconds": round(gpu.seconds, 6),
            "cpu_seconds": round(cpu.seconds, 6),
            "times_as_fast": round(speed, 3),
        }
        return Finding(group=GROUP, check=self._check(plan), status=status, says=says, remedy=remedy, facts=facts)


def _overlap(check: str, measured: Overlap) -> Finding:
    busiest = STREAMS[measured.bottleneck]
    says = (
        f"{measured.loads} loads, by events: {busiest} kept their stream busy {measured.busy_share:.0%} of the time, "
        f"and {measured.hidden_share:.0%} of the copies' time was hidden behind the network."
    )
    network_s = measured.busy_s["infer"]
    poor = measured.hidden_share < HIDDEN_EXPECTED and measured.copies_s > COPIES_THAT_MATTER * network_s
    facts = {
        "loads": measured.loads,
        "wall_seconds": round(measured.wall_s, 6),
        "busy_seconds": {work.replace(" ", "_"): round(busy, 6) for work, busy in measured.busy_s.items()},
        "bottleneck": measured.bottleneck.replace(" ", "_"),
        "bottleneck_busy_share": round(measured.busy_share, 4),
        "copies_seconds": round(measured.copies_s, 6),
        "copies_hidden_share": round(measured.hidden_share, 4),
    }
    return Finding(
        group=OVERLAP,
        check=check,
        status="warning" if poor else "ok",
        says=says,
        remedy="check your model with exactile run --trace FILE.json." if poor else "",
        facts=facts,
    )


def _not_tried(check: str, backend: Backend, error: MissingConverterError) -> Finding:
    says = f"{backend} was not tried: {error}."
    remedy = "pip install 'exactile[convert]', to build a small engine for this check."
    return Finding(group=GROUP, check=check, status="not applicable", says=says, remedy=remedy)


def _labels(found: Difference) -> str:
    if not found.differing:
        return f"all {found.pixels} labels are those of the CPU"
    return f"{found.differing} of {found.pixels} labels differ from those of the CPU"


def _json_number(value: float) -> float | None:
    """Return None instead of infinity, which JSON cannot represent."""
    return value if value != float("inf") else None


def usable_devices(findings: Iterator[Finding] | list[Finding]) -> list[str]:
    """Return the GPUs on which at least one engine gave the right results in at least one plan."""
    ran = (each for each in findings if each.group == GROUP and each.status == "ok" and "processor" in each.facts)
    return list(dict.fromkeys(each.check.split()[0] for each in ran if each.check.startswith("cuda:")))
