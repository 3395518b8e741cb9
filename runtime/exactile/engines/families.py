"""Open networks on a GPU: with TensorRT from built engines, or with ONNX Runtime from the model's graphs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from exactile.contract import DeployedModel
from exactile.contract.built_engine import Backend, BuiltEngine, EngineRole
from exactile.cuda.protocol import DeviceInfo
from exactile.engines.cuda_provider import load_cuda_library
from exactile.engines.device_network import DeviceNetwork
from exactile.engines.device_partials import DevicePartials
from exactile.engines.onnx_runtime_cuda import OnnxRuntimeCudaNetwork
from exactile.engines.rtx_gpus import capability_text, rtx_refusal
from exactile.engines.tensorrt import TensorRTNetwork
from exactile.engines.tensorrt_library import load_tensorrt
from exactile.errors import DeviceError
from exactile.plan.built import matching
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan


class EngineFamily(Protocol):
    """One kind of engine on one or several GPUs."""

    @property
    def name(self) -> str:
        """Name for people, with its version."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines the last digits of results, as plain data."""

    @property
    def engines(self) -> tuple[BuiltEngine, ...] | None:
        """The engines whose shapes alone can run; None if every shape can."""

    def needed(self, plan: Plan, role: EngineRole, rows: int) -> Hashable:
        """Return a key of the network that runs ``rows`` image rows of ``plan``; equal keys mean the same network."""

    def open(self, device: DeviceInfo, plan: Plan, role: EngineRole, rows: int, *, stream: int) -> DeviceNetwork:
        """Open it for work on ``stream``. Raises DeviceError, DeviceMemoryError, EngineError, BundleError."""


class TensorRTFamily:
    """Implements ``EngineFamily`` with the engines of ``model`` that fit the library and all ``devices``.

    They give its result, or find the statistics of the pass number ``level``. Raises DeviceError that says of each
    engine why it does not fit.
    """

    def __init__(
        self,
        model: DeployedModel,
        backend: Backend,
        precision: str,
        devices: tuple[DeviceInfo, ...],
        level: int | None = None,
    ) -> None:
        self._backend = backend
        for device in devices:
            if reason := rtx_refusal(backend, device.compute_capability, f"cuda:{device.ordinal} ({device.name})"):
                raise DeviceError(reason)
        self._version = load_tensorrt(backend).version
        fitting, refused = [], list(model.engines_refused)
        for engine in (one for one in model.engines if one.level == level):
            reason = _unfit(engine, backend, self._version, devices)
            if reason:
                refused.append(f"{engine.plan.name}: {reason}")
            else:
                fitting.append(engine)
        self.precision = _precision(fitting, precision)
        self._engines = tuple(engine for engine in fitting if engine.precision == self.precision)
        if not self._engines:
            raise DeviceError(_no_engine(backend, precision, refused, fitting))

    @property
    def name(self) -> str:
        return f"{self._backend} {self._version}, {self.precision}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"engine": {"name": self._backend, "version": self._version, "precision": self.precision}}

    @property
    def engines(self) -> tuple[BuiltEngine, ...]:
        return self._engines

    def needed(self, plan: Plan, role: EngineRole, rows: int) -> BuiltEngine:
        found = matching(self._engines, role, rows, plan.x.tile)
        if found is None:
            raise DeviceError(f"no engine was built for a {role} of {rows} x {plan.x.tile} pixels")
        return found

    def open(self, device: DeviceInfo, plan: Plan, role: EngineRole, rows: int, *, stream: int) -> DeviceNetwork:  # noqa: ARG002 -- TensorRT takes the stream with each call
        return TensorRTNetwork(self.needed(plan, role, rows), compute_capability=device.compute_capability)


class OnnxRuntimeCudaFamily:
    """Implements ``EngineFamily`` with ONNX Runtime's CUDA provider. Raises DeviceError where it cannot be used.

    With ``partials``, ``model`` is a pass that finds statistics, with its graph for GPUs.
    """

    engines = None

    def __init__(self, model: DeployedModel, partials: DevicePartials | None = None) -> None:
        self._model, self._partials = model, partials
        self._version = load_cuda_library().__version__

    @property
    def name(self) -> str:
        return f"onnxruntime {self._version} (CUDA)"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"engine": {"name": "onnxruntime-cuda", "version": self._version}}

    def needed(self, plan: Plan, role: EngineRole, rows: int) -> Hashable:
        return role, rows, plan.x.tile

    def open(self, device: DeviceInfo, plan: Plan, role: EngineRole, rows: int, *, stream: int) -> DeviceNetwork:
        model, width = self._model, plan.x.tile
        graph, weights = model.graph, model.weights
        dimensions: dict[str, int] = {}
        outputs: dict[str, tuple[int, ...]] = {}
        if isinstance(plan, StripPlan) and role != "tile":
            strips = plan.strips
            graph, weights = strips.graphs[role].graph, strips.weights
            dimensions = {carry.width_name: carry.columns_at(width) for carry in strips.carries}
            if role != "last":
                outputs = {f"{carry.name}_out": carry.shape_at(width) for carry in strips.carries}
        result = model.contract.result
        if self._partials is not None:
            dimensions = self._partials.dims_at(width)
            outputs[result.name] = (self._partials.numbers_at(rows),)
        else:
            front = (result.channels,) if result.channels else ()
            outputs[result.name] = (*front, self._output_rows(plan, role, rows), plan.x.tile_output)
        return OnnxRuntimeCudaNetwork(
            graph,
            tile_shape=(rows, width),
            output_shapes=outputs,
            ordinal=device.ordinal,
            stream=stream,
            dimensions=dimensions,
            weights=weights,
            claims=model.claims,
        )

    def _output_rows(self, plan: Plan, role: EngineRole, rows: int) -> int:
        """Return the rows of the network's output for ``rows`` image rows; the last strip has the image's own
        remainder.
        """
        if not isinstance(plan, StripPlan) or role == "tile":
            return plan.y.tile_output
        strips, geometry = plan.strips, plan.y.domain.geometry
        if role == "first":
            return geometry.output_position(rows) - strips.lag
        start = geometry.output_position(strips.startup_rows)
        height = strips.startup_rows + rows
        if role == "body":
            return geometry.output_position(height) - start
        return self._model.contract.geometry.y.of_size(height).output_size(height) - (start - strips.lag)


def _unfit(engine: BuiltEngine, backend: Backend, version: str, devices: tuple[DeviceInfo, ...]) -> str:
    """Return why ``engine`` cannot run; empty if it can."""
    if engine.backend != backend:
        return f"built by {engine.backend}"
    if engine.backend_version != version:
        return f"built by {backend} {engine.backend_version}, and {version} is installed"
    for device in devices:
        if device.compute_capability not in engine.compute_capabilities:
            gpu, has = f"cuda:{device.ordinal} ({device.name})", capability_text((device.compute_capability,))
            return f"built for compute capability {capability_text(engine.compute_capabilities)}, and {gpu} has {has}"
    return ""


def _precision(engines: list[BuiltEngine], asked: str) -> str:
    """Return ``asked``, or the available precision with the most bits."""
    there = {engine.precision for engine in engines}
    return asked or next((precision for precision in ("fp32", "tf32", "fp16") if precision in there), "")


def _no_engine(backend: Backend, precision: str, refused: list[str], fitting: list[BuiltEngine]) -> str:
    other = sorted({engine.precision for engine in fitting})
    reasons = [*refused, *(f"there are engines of {', '.join(other)}" for _ in other[:1])]
    wanted = f"{backend} engine" + (f" of {precision}" if precision else "")
    said = "; ".join(reasons) if reasons else "none was built for this model"
    return (
        f"no {wanted} of this model can run here: {said}. What to do: exactile convert BUNDLE --engine {backend}, "
        "or --engine onnxruntime, or --device cpu"
    )
