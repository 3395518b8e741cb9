"""Sessions on emulated GPUs, with ONNX Runtime where TensorRT would be: what a test needs to run the real pipeline."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from exactile.contract import DeployedModel, OutputKind
from exactile.contract.built_engine import BuiltEngine
from exactile.geometry import round_up
from exactile.plan.background import Background
from exactile.plan.strips import last_rows
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.device.form import DeviceForm, DevicePrecision, pass_form, strip_form, tile_form
from exactile_converters.graphs.io import Normalization
from exactile_converters.prepare.from_onnx import prepare_network
from tests.emulation.driver import Emulation, load
from tests.support import tensorrt_stand_in
from tests.support.nets import Weights, onnx_bytes
from tests.support.tensorrt_stand_in import EmulatedGpu, TensorRTStandIn

import onnx  # isort: skip

BINDINGS = ("pycuda", "cuda.bindings")
SCRATCH_BYTES = 4096


@contextmanager
def emulated(monkeypatch, binding: str, **machine) -> Iterator[tuple[Emulation, TensorRTStandIn]]:
    """An emulated machine on ``binding``, ``tensorrt`` on it; no GPU is left afterwards."""
    emulation = load()
    emulation.reset(**machine)
    stand_in = TensorRTStandIn(EmulatedGpu(emulation), scratch_bytes=SCRATCH_BYTES)
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in.module)
    monkeypatch.setenv("EXACTILE_CUDA_BINDING", binding)
    try:
        yield emulation, stand_in
    finally:
        emulation.reset(devices=0)


@cache
def deployed(
    net: str,
    output: OutputKind = "labels",
    dtype: str = "uint8",
    *,
    strips: bool = True,
    normalization: Normalization | None = None,
) -> DeployedModel:
    """A test network: with random weights for labels, so that there are several; else with small integers.

    With those sums are exact in whatever order they are taken, but one class wins everywhere.
    """
    weights: Weights = "random" if output == "labels" else "integer"
    return deploy(
        prepare_network(onnx.load_from_string(onnx_bytes(net, weights)), name=net),
        image_dtype=dtype,
        output=output,
        normalization=normalization,
        strips=strips,
    )


def with_engines(
    model: DeployedModel,
    folder: Path,
    *,
    tiles: Sequence[tuple[int, int]] = (),
    batch: int = 1,
    strips: Sequence[tuple[int, int]] = (),
    precision: DevicePrecision = "fp32",
) -> DeployedModel:
    """``model`` with engines for tiles of (height, width) and strips of (rows, band width)."""
    engines = [_built(tile_form(model, tile, batch=batch, precision=precision), folder) for tile in tiles]
    engines += [
        replace(_built(pass_form(model, number, tile), folder / f"pass{number}"), level=number)
        for tile in tiles
        for number in range(1, len(model.levels) + 1)
    ]
    for rows, width in strips:
        assert model.strips is not None
        first = round_up(model.strips.startup_rows, rows)
        last = last_rows(model.strips, model.contract.geometry.y, rows)
        heights = {"first": (first, first), "body": (rows, rows), "last": last}
        engines += [
            _built(strip_form(model, role, heights[role], width, precision=precision), folder) for role in heights
        ]
    return replace(model, engines=tuple(replace(engine, precision=precision) for engine in engines))


def _built(form: DeviceForm, folder: Path) -> BuiltEngine:
    home = folder / f"{form.role}-{form.rows[0]}x{form.columns}-{form.batch}"
    home.mkdir(parents=True, exist_ok=True)
    return tensorrt_stand_in.build(
        form.model,
        home,
        role=form.role,
        batch=form.batch,
        rows=form.rows,
        columns=form.columns,
        outputs={name: spec.shape for name, spec in form.outputs.items()},
    )


def picture(model: DeployedModel, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Random samples; small ones where results are maps, for which integer weights compute exactly."""
    shape = (height, width, model.contract.image.channels)
    largest = 7 if model.contract.result.channels else 255
    return np.random.default_rng(seed).integers(0, largest + 1, shape).astype(model.contract.image.dtype)


def segmented(
    model: DeployedModel,
    image: np.ndarray,
    *,
    device: str = "cpu",
    device_memory_bytes: int | None = None,
    **options,
) -> np.ndarray:
    """The result of a session of its own."""
    session = Session(
        model, device=device, device_memory_bytes=device_memory_bytes, threads=1 if device == "cpu" else None
    )
    try:
        return run(session, image, **options)
    finally:
        session.close()


def run(session: Session, image: np.ndarray, *, background: Background | None = None, **options) -> np.ndarray:
    sink = ArraySink()
    session.segment(ArraySource(image), sink, background=background, **options)
    return sink.result
