"""Run the checks in order, and draw the conclusion."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from exactile.cuda.ordinals import DeviceChoice, parse_devices
from exactile.doctor import on_cpu, on_gpu, providers
from exactile.doctor.finding import Finding
from exactile.doctor.isolation import Isolation
from exactile.doctor.machine import machine_findings
from exactile.doctor.privacy import Redaction
from exactile.doctor.report import Report, made
from exactile.engines.rtx_gpus import rtx_refusal
from exactile.processors.choice import BACKENDS

GPU_GROUP, ENGINES, RESULTS = "gpu", "engines", "results"
GROUPS = ("machine", "packages", GPU_GROUP, ENGINES, RESULTS, "overlap", "bundle")
"""Groups of findings, in the order of the report."""


def examine(*, device: str = "auto", bundle: Path | None = None, limit_s: float = 300.0) -> Report:
    """Run all checks for ``device``, and for ``bundle``. Raises OptionError for a wrong ``device``.

    ``limit_s`` applies to each check that imports or runs what may crash or hang: each runs in its own process.
    """
    examination = Examination(choice=parse_devices(device), isolation=Isolation(limit_s=limit_s), findings=[])
    examination.run(bundle)
    works, verdict = examination.verdict(device)
    names = {str(path): path.name for path in (bundle, bundle.absolute(), bundle.resolve())} if bundle else {}
    return made(
        device=device,
        bundle=bundle.resolve().name if bundle is not None else None,
        works=works,
        verdict=verdict,
        findings=sorted(examination.findings, key=lambda finding: GROUPS.index(finding.group)),
        redaction=Redaction(names),
    )


class Runner(Protocol):
    """Something that runs a check and returns what it found: ``Isolation``."""

    def run(self, check: str, *, group: str, name: str, **arguments: Any) -> list[Finding]: ...


@dataclass(slots=True, kw_only=True)
class Examination:
    """Yield findings as they come; ``isolation`` runs what may crash."""

    choice: DeviceChoice
    isolation: Runner
    findings: list[Finding]

    def run(self, bundle: Path | None) -> None:
        self.findings += machine_findings()
        self.findings += self.isolation.run("packages", group="packages", name="packages")
        gpus: list[dict[str, Any]] = []
        if self.choice == "cpu":
            says = "GPUs were not checked: --device cpu was given."
            self.findings.append(Finding(group=GPU_GROUP, check="driver", status="not applicable", says=says))
        else:
            self.findings += self.isolation.run("driver", group=GPU_GROUP, name="driver")
            gpus = self._chosen_gpus()
        engines = self._engines(gpus) if self.choice != "cpu" else []
        self.findings += self.isolation.run("cpu", group=RESULTS, name=on_cpu.CHECK)
        if any(finding.check == "openvino" and finding.status == "ok" for finding in self.findings):
            self.findings += self.isolation.run("cpu", group=RESULTS, name=on_cpu.OPENVINO_CHECK, engine="openvino")
        for gpu in gpus:
            self._gpu(gpu, engines, gpus[0])
        if bundle is not None:
            self.findings += self.isolation.run(
                "bundle",
                group="bundle",
                name="check",
                path=str(bundle),
                gpus=gpus,
                cuda=providers.CHECK in engines,
            )

    def verdict(self, device: str) -> tuple[bool, str]:
        """Return whether the requested device works, and a sentence."""
        failed = [f"{finding.group} {finding.check}" for finding in self.findings if finding.status == "failed"]
        usable = on_gpu.usable_devices(self.findings)
        missing = [gpu for gpu in self._asked() if gpu not in usable]
        if self.choice == "all" and not usable:
            missing = ["any GPU"]
        if missing:
            reasons = " ".join(self._reasons(missing)) or "No engine runs on it."
            return False, f"--device {device} does NOT work here: {', '.join(missing)} cannot be used. {reasons}"
        if failed:
            return False, f"exactile does NOT work as it should here; what failed: {', '.join(failed)}."
        if usable:
            return True, f"exactile works here, on {', '.join(usable)} and on the CPU."
        return True, self._on_the_cpu()

    def _asked(self) -> list[str]:
        return [f"cuda:{ordinal}" for ordinal in self.choice] if isinstance(self.choice, tuple) else []

    def _on_the_cpu(self) -> str:
        reasons = self._reasons([])[:1] if self.choice == "auto" else []
        return (
            f"exactile works here, on the CPU and on no GPU. {reasons[0]}"
            if reasons
            else "exactile works here, on the CPU."
        )

    def _reasons(self, gpus: Sequence[str]) -> list[str]:
        """Return sentences on why a GPU cannot be used, and on what went wrong on ``gpus``."""
        return [
            finding.says
            for finding in self.findings
            if (finding.status != "ok" and finding.group in (GPU_GROUP, ENGINES) and finding.check not in BACKENDS)
            or (finding.status == "failed" and finding.group == RESULTS and finding.check.split()[0] in gpus)
        ]

    def _chosen_gpus(self) -> list[dict[str, Any]]:
        """Return facts of the requested GPUs that can be opened; a finding for one that is missing."""
        there = [dict(f.facts) for f in self.findings if f.group == GPU_GROUP and f.status == "ok" and _is_gpu(f)]
        if not isinstance(self.choice, tuple):
            return there
        known = {f.check for f in self.findings if f.group == GPU_GROUP}
        for asked in self._asked():
            if asked not in known and there:
                says = f"{asked} was requested, and the GPUs here are {_named(there)}."
                remedy = "see nvidia-smi and CUDA_VISIBLE_DEVICES."
                self.findings.append(Finding(group=GPU_GROUP, check=asked, status="failed", says=says, remedy=remedy))
        return [gpu for gpu in there if f"cuda:{gpu['ordinal']}" in self._asked()]

    def _engines(self, gpus: Sequence[dict[str, Any]]) -> list[str]:
        """Return the names of the checks of available engines."""
        ordinal = gpus[0]["ordinal"] if gpus else None
        found = self.isolation.run("providers", group=ENGINES, name=providers.CHECK, ordinal=ordinal)
        for backend in BACKENDS:
            found += self.isolation.run("tensorrt", group=ENGINES, name=backend, backend=backend)
        self.findings += found
        names = (providers.CHECK, *BACKENDS)
        return [finding.check for finding in found if finding.status == "ok" and finding.check in names]

    def _gpu(self, gpu: dict[str, Any], engines: Iterable[str], first: dict[str, Any]) -> None:
        device, capability = f"cuda:{gpu['ordinal']}", gpu["compute_capability"]
        for engine in engines:
            if engine == providers.CHECK:
                name = f"{device} onnxruntime"
                self.findings += self.isolation.run("onnxruntime on a GPU", group=RESULTS, name=name, device=device)
            elif reason := rtx_refusal(engine, (capability[0], capability[1]), f"{device} ({gpu['name']})"):
                says, _, remedy = reason.partition("; ")
                name = f"{device} {engine}"
                self.findings.append(
                    Finding(group=RESULTS, check=name, status="not applicable", says=f"{says}.", remedy=f"{remedy}.")
                )
            elif engine == "tensorrt" and capability != first["compute_capability"]:
                says = f"tensorrt builds for the first GPU here, and {device} is of another kind."
                remedy = f"CUDA_VISIBLE_DEVICES={_visible_name(gpu['ordinal'])} exactile doctor checks only this one."
                name = f"{device} tensorrt"
                self.findings.append(
                    Finding(group=RESULTS, check=name, status="not applicable", says=says, remedy=remedy)
                )
            else:
                self._tensorrt(engine, device, capability)

    def _tensorrt(self, backend: str, device: str, capability: Sequence[int]) -> None:
        """Check each precision on its own: building takes a while."""
        for precision in on_gpu.PRECISIONS:
            self.findings += self.isolation.run(
                "tensorrt on a GPU",
                group=RESULTS,
                name=f"{device} {backend}:{precision}",
                device=device,
                backend=backend,
                precision=precision,
                compute_capability=capability,
            )


def _is_gpu(finding: Finding) -> bool:
    return finding.check.startswith("cuda:")


def _visible_name(ordinal: int) -> str:
    """Return the GPU's entry in CUDA_VISIBLE_DEVICES: if it is set, ordinals count its list."""
    listed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return listed[ordinal] if ordinal < len(listed) else str(ordinal)


def _named(gpus: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"cuda:{gpu['ordinal']} ({gpu['name']})" for gpu in gpus)
