"""Builds by TensorRT-RTX, as several test modules ask for them."""

from __future__ import annotations

from pathlib import Path

from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization
from exactile_converters.tensorrt_engine.engines import EngineSettings
from exactile_converters.tensorrt_engine.monitor import SilentWatcher
from exactile_converters.tensorrt_engine.plan import PlanSettings, build_plan, load_library
from tests.support.nets import onnx_file

AMPERE, ADA = (8, 6), (8, 9)
NORMALIZATION = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))


class Told(SilentWatcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.engines, self.steps, self.shares, self.notes = [], [], [], []

    def started(self, what: str) -> None:
        self.engines.append(what)

    def doing(self, step: str) -> None:
        self.steps.append(step)

    def progress(self, share: float) -> None:
        self.shares.append(share)

    def note(self, text: str) -> None:
        self.notes.append(text)


def settings(**options) -> EngineSettings:
    return EngineSettings(**{"backend": "tensorrt-rtx", "compute_capabilities": (AMPERE,), "tile": (64, 64), **options})


def plan_of(model, form, *, watcher=None, cancellation=None, **options) -> bytes:
    wanted = PlanSettings(**{"precision": "fp32", "compute_capabilities": (AMPERE,), **options})
    return bytes(build_plan(load_library("tensorrt-rtx"), model, form, wanted, watcher or Told(), cancellation))


def unet_bundle(folder: Path) -> Path:
    """A small U-Net's bundle in ``folder``."""
    convert(onnx_file(folder, "unet_d2"), folder / "unet_d2", normalization=NORMALIZATION)
    return folder / "unet_d2"
