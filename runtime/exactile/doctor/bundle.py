"""Check a user's bundle on this machine: complete, right on the CPU, and which of its engines fit the GPUs here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exactile.bundle.opening import Bundle, open_bundle
from exactile.bundle.sample import TOLERATED_DIFFERENCE, TOLERATED_LABELS
from exactile.contract import DeployedModel
from exactile.contract.built_engine import BuiltEngine
from exactile.cuda.protocol import DeviceInfo
from exactile.doctor.finding import Finding, Telling, of_error, one_line, sentence
from exactile.doctor.small_network import Array, Difference, difference
from exactile.engines.families import TensorRTFamily
from exactile.errors import DeviceError, ExactileError
from exactile.geometry import round_up
from exactile.machine.architecture import GPU, architecture
from exactile.plan.built import built_plans
from exactile.planning import PlanName
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

GROUP = "bundle"
FP16_LABELS, FP16_DIFFERENCE = 0.05, 0.05
"""Differences allowed in half precision."""


def check_bundle(telling: Telling, arguments: Mapping[str, Any]) -> None:
    """Check ``path``; ``gpus`` are those to use, as plain data; ``cuda``: whether ONNX Runtime runs on them."""
    telling.doing("reading the bundle")
    try:
        bundle = open_bundle(Path(arguments["path"]))
    except ExactileError as error:
        telling.found(of_error(GROUP, "files", error))
        return
    telling.found(_opened(bundle))
    _sample(telling, bundle, "cpu", "auto")
    gpus = [_info(gpu) for gpu in arguments["gpus"]]
    for gpu in gpus if arguments["cuda"] else []:
        _sample(telling, bundle, f"cuda:{gpu.ordinal}", "onnxruntime")
    for refused in bundle.model.engines_refused:
        says = sentence(f"Not used: {one_line(refused)}")
        telling.found(Finding(group=GROUP, check="engines", status="warning", says=says, remedy=_rebuild(bundle)))
    if not bundle.model.engines and not bundle.model.engines_refused:
        says = "It has no TensorRT engines; on a GPU, ONNX Runtime runs it."
        telling.found(Finding(group=GROUP, check="engines", status="not applicable", says=says))
    for gpu in gpus:
        _engines(telling, bundle, gpu)
    if bundle.model.engines and not gpus:
        says = f"{len(bundle.model.engines)} engines are beside it, and there is no GPU to use them."
        telling.found(Finding(group=GROUP, check="engines", status="not applicable", says=says))


def _opened(bundle: Bundle) -> Finding:
    file = bundle.file
    says = f"{file.model}, {file.precision}, {file.made_by}: {len(file.files)} files are unchanged since conversion."
    facts = {
        "model": file.model,
        "precision": file.precision,
        "made_by": file.made_by,
        "engines": len(bundle.model.engines),
        "engines_refused": len(bundle.model.engines_refused),
    }
    return Finding(group=GROUP, check="files", status="ok", says=says, facts=facts)


def _sample(telling: Telling, bundle: Bundle, device: str, engine: str) -> None:
    """Run the sample of the bundle in every plan."""
    model = bundle.model.on(architecture() if device == "cpu" else GPU)
    plans: tuple[PlanName, ...] = ("whole",) if model.strips is None else ("whole", "strip")
    for plan in plans:
        check = f"{device} sample in {'one pass' if plan == 'whole' else 'strips'}"
        telling.doing(f"running the bundle's sample on {device}, plan {plan}")
        try:
            found, processor = _run(model, bundle.sample_image, device, engine, plan, None)
        except ExactileError as error:
            telling.found(of_error(GROUP, check, error))
            continue
        telling.found(_verdict(check, processor, difference(bundle.sample_result, found), "those recorded"))


def _engines(telling: Telling, bundle: Bundle, gpu: DeviceInfo) -> None:
    """Find the engines that fit the GPU; run them on noise, by precision and plan."""
    fitting = []
    for built in bundle.model.engines:
        telling.doing(f"comparing {built.plan.name} with cuda:{gpu.ordinal}")
        reason = why_unfit(bundle.model, built, gpu)
        fitting += [] if reason else [built]
        telling.found(_fits(bundle, built, gpu, reason))
    for engine in dict.fromkeys((built.backend, built.precision) for built in fitting):
        same = [one for one in fitting if (one.backend, one.precision) == engine and one.level is None]
        for plan, shape, size in _runs(bundle.model, same):
            _run_engines(telling, bundle.model, gpu, ":".join(engine), plan, shape, size)


def why_unfit(model: DeployedModel, built: BuiltEngine, gpu: DeviceInfo) -> str:
    """Return why ``built`` cannot run on ``gpu`` here; "" if it can."""
    alone = replace(model, engines=(built,), engines_refused=())
    try:
        TensorRTFamily(alone, built.backend, built.precision, (gpu,), built.level)
    except DeviceError as error:
        text = one_line(str(error))
        _, found, reason = text.partition(f"{built.plan.name}: ")
        return reason.partition(". What to do:")[0] if found else text
    return ""


def _fits(bundle: Bundle, built: BuiltEngine, gpu: DeviceInfo, reason: str) -> Finding:
    kind = "tiles" if built.role == "tile" else f"{built.role} strips"
    kind += f" of pass {built.level}," if built.level is not None else ""
    rows = str(built.rows[0]) if built.rows[0] == built.rows[1] else f"{built.rows[0]} to {built.rows[1]}"
    batch = f", {built.batch} at a time" if built.batch > 1 else ""
    which = f"{built.backend}:{built.precision} for {kind} of {rows} x {built.columns}{batch} ({built.plan.name})"
    facts = {"plan": built.plan.name, "backend": built.backend, "precision": built.precision, "role": built.role,
             "rows": list(built.rows), "columns": built.columns, "batch": built.batch, "fits": not reason,
             "reason": reason}  # fmt: skip
    check = f"cuda:{gpu.ordinal} engine"
    if not reason:
        return Finding(group=GROUP, check=check, status="ok", says=f"{which} fits {gpu.name}.", facts=facts)
    says = sentence(f"{which} does not fit {gpu.name}: {reason}")
    return Finding(group=GROUP, check=check, status="warning", says=says, remedy=_rebuild(bundle), facts=facts)


def _runs(
    model: DeployedModel, engines: list[BuiltEngine]
) -> Iterator[tuple[PlanName, tuple[int, int], tuple[int, int]]]:
    """Yield a plan, its shape, and the smallest image that it can run."""
    tile = next((built for built in engines if built.role == "tile"), None)
    if tile is not None:
        yield "tile", (tile.rows[0], tile.columns), (tile.rows[0], tile.columns)
    body = next((built for built in engines if built.role == "body"), None)
    if body is None or model.strips is None:
        return
    rows = body.rows[0]
    size = round_up(model.strips.startup_rows, rows) + rows + model.strips.least_last_rows, body.columns
    if any(plan.name == "strip" for plan in built_plans(model, size, "model", engines)):
        yield "strip", (rows, body.columns), size


def _run_engines(
    telling: Telling,
    model: DeployedModel,
    gpu: DeviceInfo,
    engine: str,
    plan: PlanName,
    shape: tuple[int, int],
    size: tuple[int, int],
) -> None:
    check = f"cuda:{gpu.ordinal} {engine} {'tiles' if plan == 'tile' else 'strips'}"
    telling.doing(f"running the bundle's engines on cuda:{gpu.ordinal}, {engine}, plan {plan}")
    try:
        image = _noise(model, size)
        expected, _ = _run(model, image, "cpu", "auto", "auto", None)
        found, processor = _run(model, image, f"cuda:{gpu.ordinal}", engine, plan, shape)
    except ExactileError as error:
        telling.found(of_error(GROUP, check, error))
        return
    half = engine.endswith("fp16")
    telling.found(_verdict(check, processor, difference(expected, found), "those of the CPU", half=half))


def _run(
    model: DeployedModel, image: Array, device: str, engine: str, plan: PlanName, shape: tuple[int, int] | None
) -> tuple[Array, str]:
    sink = ArraySink()
    session = Session(model, device=device, engine=engine)
    try:
        summary = session.segment(ArraySource(image), sink, plan=plan, tile=shape)
    finally:
        session.close()
    return sink.result, summary.processor


def _verdict(check: str, processor: str, found: Difference, truth: str, *, half: bool = False) -> Finding:
    most = FP16_LABELS if half else TOLERATED_LABELS
    values = FP16_DIFFERENCE if half else TOLERATED_DIFFERENCE
    holds = found.relative <= values if found.largest else found.differing <= most * found.pixels
    if found.largest:
        says = f"{processor}: values differ from {truth} by at most {found.max_abs:.2g}, of up to {found.largest:.3g}."
    else:
        labels = f"{found.differing} of {found.pixels} labels are not" if found.differing else "all labels are"
        says = f"{processor}: {labels} {truth}."
    remedy = "" if holds else "do not use it here; convert the model again, and if that does not help, report it."
    facts = {
        "processor": processor,
        "pixels": found.pixels,
        "differing": found.differing,
        "largest_difference": found.max_abs if np.isfinite(found.max_abs) else None,
    }
    status = "ok" if holds else "failed"
    return Finding(group=GROUP, check=check, status=status, says=says, remedy=remedy, facts=facts)  # type: ignore[arg-type]


def _noise(model: DeployedModel, size: tuple[int, int]) -> Array:
    image = model.contract.image
    dtype = np.dtype(image.dtype)
    samples = np.random.default_rng(0).random((*size, image.channels), np.float32)
    return (samples * (np.iinfo(dtype).max if dtype.kind == "u" else 1)).astype(dtype)


def _rebuild(bundle: Bundle) -> str:
    return f"build it again: exactile convert {bundle.path.name} --engine tensorrt (or tensorrt-rtx)."


def _info(gpu: Mapping[str, Any]) -> DeviceInfo:
    major, minor = gpu["compute_capability"]
    return DeviceInfo(
        ordinal=gpu["ordinal"], name=gpu["name"], compute_capability=(major, minor), total_bytes=gpu["total_bytes"]
    )
