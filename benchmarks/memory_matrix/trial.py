"""One combination: the least budget that is accepted, and runs within it and within more."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.harness.worker import ROOT
from benchmarks.memory_matrix.cases import Case
from benchmarks.memory_matrix.inputs import NORMALIZATION, WHITE, Inputs
from exactile.runs.batch import OVERLAP_SHARE

HERE = Path(__file__).parent
MIB = 1 << 20
TIMES = (1.0, 1.5, 3.0)
"""Budgets, as multiples of the least one."""

NOTHING = MIB
"""A budget that nothing fits: the refusal says what would do."""

MOST_REFUSALS = 12
COPIES = 3
"""Images of a run of many."""

JOURNAL_BYTES = 3000
"""Length of the journal at which a run is killed, to be resumed."""

_UNITS = {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}


class MeasureError(RuntimeError):
    """A run did what it should not: failed, or gave another result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run within ``budget_mib`` that peaked at ``peak_mib``, all in MiB. ``plan`` is what was chosen."""

    case: Case
    times: float
    budget_mib: float
    peak_mib: float
    predicted_mib: float | None
    plan: str

    @property
    def over(self) -> bool:
        return self.peak_mib > self.budget_mib


@dataclass(slots=True, kw_only=True)
class Trials:
    """Runs combinations over ``inputs``; results go to ``folder``, one after the other."""

    inputs: Inputs
    folder: Path
    _references: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict, init=False)

    def run(self, case: Case) -> Iterator[Outcome]:
        """Yield the runs of a combination. Raises MeasureError."""
        least = self._least(case)
        for times in TIMES:
            answer = self._run(case, budget_mib=least * times)
            if answer["status"] != 0:
                raise MeasureError(f"{case}, {least * times:.0f} MiB: {answer['err'][-1500:]}")
            self._check(case)
            told = _told(answer["out"])
            predicted = told.get("predicted_memory_bytes")
            yield Outcome(
                case=case,
                times=times,
                budget_mib=least * times,
                peak_mib=answer["peak_bytes"] / MIB,
                predicted_mib=predicted / MIB if predicted else None,
                plan=" ".join([told["plan"], "x".join(map(str, told["tile"]))]),
            )

    def _least(self, case: Case) -> float:
        """Return the least budget in MiB that is accepted: what the refusals ask for."""
        budget_mib = NOTHING / MIB
        for _ in range(MOST_REFUSALS):
            answer = self._run(case, budget_mib=budget_mib)
            if answer["status"] == 0:
                return budget_mib
            asked = re.search(r"needs about ([\d.]+) (KiB|MiB|GiB)", answer["err"])
            if asked is None:
                raise MeasureError(f"{case}, {budget_mib:.0f} MiB: {answer['err']}")
            # Processes differ by some pages, so what one asks for may be a little less than another needs.
            asked_mib = float(asked[1]) * _UNITS[asked[2]]
            # Of many images, each may take all but the share that the one before still holds.
            share = 1 - 1 / OVERLAP_SHARE if case.option == "many" else 1
            budget_mib = max(asked_mib / share, budget_mib + 0.1)
        raise MeasureError(f"{case}: {budget_mib:.0f} MiB were requested and refused")

    def _run(self, case: Case, *, budget_mib: float) -> dict:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        command = self._command(case, budget_mib)
        if case.option == "resume":
            target = self._target(case)
            written = target.parent / f".{target.name}.journal"
            first = _launch(command, self.folder, kill_at=(str(written), JOURNAL_BYTES))
            if first["status"] not in (0, -9):
                return first
            command.append("--resume")
        return _launch(command, self.folder)

    def _command(self, case: Case, budget_mib: float) -> list[str]:
        model, options = self._model(case)
        budget_bytes = int(budget_mib * MIB)
        image, target = self.inputs.image(case.source), self._target(case)
        if case.option == "stream":
            return [sys.executable, str(HERE / "streamed.py"), str(model), str(image), str(target), str(budget_bytes)]
        images = [image]
        if case.option == "many":
            images = [self.folder / f"{number}{image.suffix}" for number in range(COPIES)]
            for copy in images:
                copy.symlink_to(image)
            options += ["--format", f".{case.sink}"]
            target = self.folder / "results"
        options += ["--axes", "YXC"] if case.source == "Zarr 2048" else []
        options += {
            "pictures": ["--preview", "--overlay"],
            "background": ["--skip-background", "250", "--background-label", "1"],
            "reflect": ["--border", "reflect"],
        }.get(case.option, [])
        plan = ["--plan", case.plan, "--memory", f"{budget_bytes}B", "--overwrite", "--no-progress", "--json"]
        return [
            sys.executable,
            "-m",
            "exactile",
            "run",
            str(model),
            *map(str, images),
            "-o",
            str(target),
            *options,
            *plan,
        ]

    def _model(self, case: Case) -> tuple[Path, list[str]]:
        """Return the model, and the options that go with it."""
        options = self._model_options(case)
        name = "unet" if case.network == "wider bundle" else "stain_unet"
        return (
            (self.inputs.network(name), [*options])
            if case.network == "ONNX"
            else (self.inputs.bundle(name, options), [])
        )

    @staticmethod
    def _model_options(case: Case) -> tuple[str, ...]:
        if case.option == "statistics":
            return ("--normalize", "zscore")
        return (*NORMALIZATION, *(("--output", "raw") if case.option == "raw" else ()))

    def _target(self, case: Case) -> Path:
        if case.option == "many":
            return self.folder / "results" / f"{COPIES - 1}.{case.sink}"
        return self.folder / f"result.{case.sink}"

    def _check(self, case: Case) -> None:
        """Check that the result is that of one whole pass without a budget. Raises MeasureError."""
        kind = case.option if case.option in ("raw", "statistics", "reflect") else ""
        key = (case.network.replace("ONNX", "bundle"), case.source if case.source == "palette" else "", kind)
        found = _read(self._target(case))
        if key not in self._references:
            self._references[key] = self._reference(case)
        wanted = self._references[key]
        if case.option == "background":
            keep = found.shape[1] - 2 * WHITE
            found, wanted = found[:, :keep], wanted[:, :keep]
        if found.shape != wanted.shape or not np.array_equal(found, wanted):
            raise MeasureError(f"{case}: the result is not that of one pass")

    def _reference(self, case: Case) -> np.ndarray:
        border = ["--border", "reflect"] if case.option == "reflect" else []
        bundle = self.inputs.bundle(
            "unet" if case.network == "wider bundle" else "stain_unet", self._model_options(case)
        )
        image = self.inputs.image("palette" if case.source == "palette" else "npy")
        target = self.folder / "reference.npy"
        plan = ["--plan", "whole", "--memory", "12GiB", "--no-progress", *border]
        run = ["run", str(bundle), str(image), "-o", str(target), *plan]
        subprocess.run([sys.executable, "-m", "exactile", *run], check=True, capture_output=True)
        return np.load(target)


def _launch(command: list[str], folder: Path, kill_at: tuple[str, int] | None = None) -> dict:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    request = {"command": command, "folder": str(folder), "environment": environment, "kill_at": kill_at}
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(HERE / "launch.py")],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout)


def _told(text: str) -> dict:
    """Return the summary; of many images, that of the largest prediction."""
    found = json.loads(text)
    return max(found, key=lambda one: one["predicted_memory_bytes"]) if isinstance(found, list) else found


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".tif":
        return tifffile.imread(path, series=0, level=0) if not _is_stack(path) else tifffile.imread(path)
    import zarr

    labels = path / "labels" / "segmentation" / "0"
    return zarr.open_array(labels if labels.exists() else path / "0", mode="r")[:]


def _is_stack(path: Path) -> bool:
    with tifffile.TiffFile(path) as tiff:
        return len(tiff.series) == 1 and tiff.series[0].ndim == 3
