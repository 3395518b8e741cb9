"""Build all engines that were asked for: form, check, build, write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from exactile.bundle.engine_file import model_digest
from exactile.bundle.engine_files import read_engines
from exactile.bundle.opening import Bundle, open_bundle
from exactile.contract import DeployedModel
from exactile.contract.built_engine import BuiltEngine, EngineRole
from exactile.engines.tensorrt_library import TensorRTLibrary
from exactile.errors import CancelledError, ModelError, OptionError
from exactile.geometry import round_up
from exactile.machine.architecture import GPU
from exactile.machine.memory import free_bytes
from exactile.plan.strips import last_rows
from exactile_converters.bundles.tile_shape import check_size, least_size, padded_tile
from exactile_converters.device.agreement import FormAgreement, carried_rows, check_strip, check_tile
from exactile_converters.device.form import DeviceForm, DevicePrecision, pass_form, strip_form, tile_form
from exactile_converters.device.pass_agreement import check_pass
from exactile_converters.tensorrt_engine.capability import Capabilities, resolve
from exactile_converters.tensorrt_engine.monitor import BuildWatcher, Cancellation, SilentWatcher
from exactile_converters.tensorrt_engine.plan import PlanSettings, build_plan, load_library
from exactile_converters.tensorrt_engine.settings import EngineSettings
from exactile_converters.tensorrt_engine.storage import Purpose, present, write_engine

__all__ = ["EngineOutcome", "EngineSettings", "build_engines", "check_settings"]

USUAL_BAND_PX = 4096
MEMORY_SHARE = 0.25
"""Share of the free memory for activations on the CPU: ONNX Runtime's arena grows to twice of what is used at once."""

State = Literal["built", "replaced", "up to date"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOutcome:
    """An engine: whether it was built now, how well its graph agreed ("" if it existed before), and the time taken."""

    engine: BuiltEngine
    state: State
    agreement: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An engine to build: ``rows`` are (least, most) image rows; ``level`` the number of a pass for statistics."""

    role: EngineRole
    rows: tuple[int, int]
    columns: int
    batch: int = 1
    level: int | None = None

    def __str__(self) -> str:
        least, most = self.rows
        rows = str(least) if least == most else f"{least} to {most}"
        batch = f"{self.batch} x " if self.batch > 1 else ""
        if self.level is not None:
            return f"tile {rows} x {self.columns} of pass {self.level}"
        return f"{self.role if self.role == 'tile' else f'{self.role} strip'} {batch}{rows} x {self.columns}"


def build_engines(
    bundle: str | Path,
    settings: EngineSettings,
    *,
    watcher: BuildWatcher | None = None,
    cancellation: Cancellation | None = None,
) -> tuple[EngineOutcome, ...]:
    """Build the engines that ``settings`` ask for, and store them in the ``bundle``.

    An engine that exists and would be built again unchanged is kept. Each graph is run on the CPU and compared with the
    bundle's own before it is built.

    Raises EngineBuildError, ModelError, OptionError, BundleError, SinkError; CancelledError once ``cancellation`` is
    set. Engines that were written before are kept.
    """
    opened = open_bundle(bundle)
    if reason := _no_engines_reason(opened):
        raise OptionError(f"no engine can be built of {opened.file.model}: {reason}")
    library = load_library(settings.backend)
    capabilities = resolve(library, settings.compute_capabilities)
    opened = replace(opened, model=opened.model.without_placed)
    work = _Work(opened, library, settings, capabilities, watcher or SilentWatcher(), cancellation or Cancellation())
    return tuple(work.run(wanted) for wanted in tuple(_wanted(opened, settings)))


def _no_engines_reason(opened: Bundle) -> str:
    if opened.model.contract.geometry.placed:
        return (
            "some of its operators depend on the position in the image, and graphs with such operators run on the CPU "
            "only"
        )
    if any(level.on_device is None for level in opened.model.levels):
        return (
            "it takes statistics of the whole image, and the bundle has no graphs that find them on a GPU; convert the "
            "model again"
        )
    return ""


def check_settings(settings: EngineSettings) -> None:
    """Check what can be checked before there is a bundle. Raises EngineBuildError, OptionError."""
    resolve(load_library(settings.backend), settings.compute_capabilities)


def _wanted(opened: Bundle, settings: EngineSettings) -> Iterator[Wanted]:
    model, geometry = opened.model, opened.model.contract.geometry
    height, width = padded_tile(geometry, settings.tile or opened.file.tile.shape)
    yield Wanted(role="tile", rows=(height, height), columns=width, batch=settings.batch)
    for number in range(1, len(model.levels) + 1):
        yield Wanted(role="tile", rows=(height, height), columns=width, level=number)
    rows, stride = settings.strip_rows, geometry.y.stride
    if rows is None:
        return
    model = model.on(GPU)
    if model.strips is None:
        raise OptionError(f"{model.contract.model_name} has no strips: {model.no_strips_reason}")
    if rows < 1 or rows % stride:
        raise OptionError(
            f"a strip of {rows} rows does not fit the stride of {stride}; try {round_up(max(rows, 1), stride)}"
        )
    band = settings.strip_width or geometry.x.accepted_size(max(USUAL_BAND_PX, width))
    check_size(geometry.x, band, "a band of width")
    first = round_up(model.strips.startup_rows, rows)
    yield Wanted(role="first", rows=(first, first), columns=band)
    yield Wanted(role="body", rows=(rows, rows), columns=band)
    yield Wanted(role="last", rows=last_rows(model.strips, geometry.y, rows), columns=band)


class _Work:
    def __init__(
        self,
        opened: Bundle,
        library: TensorRTLibrary,
        settings: EngineSettings,
        capabilities: Capabilities,
        watcher: BuildWatcher,
        cancellation: Cancellation,
    ) -> None:
        self._opened, self._library, self._settings = opened, library, settings
        self._capabilities, self._watcher, self._cancellation = capabilities, watcher, cancellation
        self._precision, self._arithmetic = _precision(opened, settings.precision)
        if opened.model.levels and self._precision == "fp16":
            raise OptionError(
                f"{opened.file.model} takes statistics of the whole image, which half precision cannot sum up: leave "
                "--engine-precision out, or say fp32 or tf32"
            )
        if settings.timing_cache is not None and settings.backend == "tensorrt-rtx":
            watcher.note(
                f"tensorrt-rtx measures nothing when it builds, so {settings.timing_cache} is left as it is; it "
                "chooses on the machine where the engine runs"
            )

    def run(self, wanted: Wanted) -> EngineOutcome:
        begin = time.monotonic()
        self._watcher.started(f"{self._precision} {wanted}")
        if self._cancellation.cancelled:
            raise CancelledError("the build was stopped; no engine was written")
        form = _form(self._opened.model, wanted, self._arithmetic)
        purpose = self._purpose(form)
        fits, replaced = present(self._opened.path, purpose)
        state: State = "up to date"
        agreement = ""
        if not fits or self._settings.rebuild:
            self._watcher.doing("checking")
            agreement = str(self._check(wanted, form))
            self._watcher.doing("building")
            plan = build_plan(
                self._library, self._opened.model, form, self._plan_settings(), self._watcher, self._cancellation
            )
            write_engine(self._opened.path, purpose, plan, replaced)
            state = "replaced" if replaced or fits else "built"
        engine = self._read_back(purpose)
        return EngineOutcome(engine=engine, state=state, agreement=agreement, seconds=time.monotonic() - begin)

    def _purpose(self, form: DeviceForm) -> Purpose:
        settings = self._settings
        return Purpose(
            form=form,
            onnx_sha256=form.sha256,
            model_sha256=model_digest(self._opened.file),
            backend=settings.backend,
            backend_version=self._library.version,
            compute_capabilities=self._capabilities,
            precision=self._precision,
            workspace_bytes=settings.workspace_bytes,
            optimization_level=settings.optimization_level,
        )

    def _plan_settings(self) -> PlanSettings:
        return PlanSettings(
            precision=self._precision,
            compute_capabilities=self._capabilities,
            workspace_bytes=self._settings.workspace_bytes,
            timing_cache=self._settings.timing_cache,
            optimization_level=self._settings.optimization_level,
        )

    def _check(self, wanted: Wanted, form: DeviceForm) -> FormAgreement:
        """Check the form itself, or, where memory does not suffice for it, a smaller one made in the same way."""
        model = self._opened.model
        affordable = _affordable(model, wanted)
        if affordable != wanted:
            self._watcher.note(f"checked as {affordable}: running a {wanted} on the CPU would need too much memory")
            form = _form(model, affordable, self._arithmetic)
        if wanted.level is not None:
            return check_pass(model, form, self._precision)
        if form.role == "tile":
            return check_tile(model, form, self._precision)
        strips = model.strips
        carried = carried_rows(model, strips.startup_rows, form.columns) if strips is not None else {}
        return check_strip(model, form, self._precision, carried)

    def _read_back(self, purpose: Purpose) -> BuiltEngine:
        """Read the engine as the runtime does."""
        opened = self._opened
        engines, refused = read_engines(opened.path, opened.file, opened.model)
        for engine in engines:
            if engine.plan.stem == purpose.key:
                return engine
        raise ModelError(f"the engine {purpose.key} cannot be used: {'; '.join(refused)}; please report this")


def _precision(opened: Bundle, asked: DevicePrecision | None) -> tuple[DevicePrecision, DevicePrecision]:
    """Return the engine's precision, and the one to which the bundle's graphs are brought. Raises OptionError."""
    has = opened.file.precision
    if has == "int8":
        raise OptionError(
            "TensorRT has no unsigned 8-bit quantisation, which an int8 bundle uses; convert the model in fp32, and "
            "build with --engine-precision fp16"
        )
    if has == "fp16":
        if asked not in (None, "fp16"):
            raise OptionError(f"the bundle is of fp16; for an engine of {asked}, convert the model in fp32")
        return "fp16", "fp32"
    return asked or "fp32", asked or "fp32"


def _form(model: DeployedModel, wanted: Wanted, precision: DevicePrecision) -> DeviceForm:
    if wanted.level is not None:
        return pass_form(model, wanted.level, (wanted.rows[0], wanted.columns))
    if wanted.role == "tile":
        return tile_form(model, (wanted.rows[0], wanted.columns), batch=wanted.batch, precision=precision)
    return strip_form(model, wanted.role, wanted.rows, wanted.columns, precision=precision)


def _affordable(model: DeployedModel, wanted: Wanted) -> Wanted:
    """Return ``wanted``, or the same with fewer columns (and rows, of a tile), so that it can be run here."""
    geometry = model.contract.geometry
    while _needed_bytes(model, wanted) > MEMORY_SHARE * free_bytes():
        columns = max(least_size(geometry.x), geometry.x.accepted_size(wanted.columns // 2))
        rows = max(least_size(geometry.y), geometry.y.accepted_size(wanted.rows[0] // 2))
        smaller = replace(wanted, columns=columns, rows=(rows, rows) if wanted.role == "tile" else wanted.rows)
        if smaller == wanted:
            break
        wanted = smaller
    return wanted


def _needed_bytes(model: DeployedModel, wanted: Wanted) -> int:
    memory = model.contract.memory
    if wanted.level is not None:
        memory = model.levels[wanted.level - 1].model.contract.memory
    if wanted.role != "tile" and model.strips is not None:
        memory = model.strips.graphs[wanted.role].memory
    return memory.activation_bytes(wanted.rows[1], wanted.columns) * wanted.batch + memory.weights_bytes
