"""Build a serialised engine from a device form, by calls that TensorRT 10, 11 and RTX have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exactile.contract import DeployedModel
from exactile.contract.built_engine import Backend, TensorSpec
from exactile.engines.tensorrt_library import TensorRTLibrary, load_tensorrt
from exactile.errors import CancelledError, DeviceError, EngineBuildError, ExactileError
from exactile_converters.device.form import DeviceForm, DevicePrecision
from exactile_converters.device.stored import stored
from exactile_converters.geometry.sliding import RUNTIME_DOMAIN
from exactile_converters.tensorrt_engine.capability import Capabilities, member
from exactile_converters.tensorrt_engine.monitor import (
    BuildWatcher,
    Cancellation,
    Phases,
    in_background,
    progress_monitor,
)
from exactile_converters.tensorrt_engine.timing_cache import keep_timing_cache, use_timing_cache

LONGEST_DETAIL = 1200
"""Most characters of TensorRT's own messages that are passed on."""

DTYPES = {"UINT8": "uint8", "HALF": "float16", "FLOAT": "float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """How one engine is built; see ``EngineSettings``."""

    precision: DevicePrecision
    compute_capabilities: Capabilities
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    optimization_level: int | None = None


def load_library(backend: Backend) -> TensorRTLibrary:
    """Load the library. Raises EngineBuildError that says what to install."""
    try:
        return load_tensorrt(backend)
    except DeviceError as error:
        raise EngineBuildError(str(error)) from error


def build_plan(
    library: TensorRTLibrary,
    model: DeployedModel,
    form: DeviceForm,
    settings: PlanSettings,
    watcher: BuildWatcher,
    cancellation: Cancellation | None = None,
) -> memoryview:
    """Return the serialised engine of ``form``.

    Raises EngineBuildError with what TensorRT logged; CancelledError once ``cancellation`` is set; KeyboardInterrupt.
    """
    cancellation = cancellation or Cancellation()
    build = _Build(library, model, form, settings, watcher, cancellation)
    return in_background(build.run, cancellation)


class _Build:
    """One build, in its own thread: TensorRT's log lines are distinguished by thread."""

    def __init__(
        self,
        library: TensorRTLibrary,
        model: DeployedModel,
        form: DeviceForm,
        settings: PlanSettings,
        watcher: BuildWatcher,
        cancellation: Cancellation,
    ) -> None:
        self._library, self._image = library, model.contract.image.name
        self._form, self._settings = form, settings
        self._watcher, self._cancellation = watcher, cancellation
        self._mark = 0

    def run(self) -> memoryview:
        self._mark = self._library.lines.mark()
        try:
            return self._run()
        except ExactileError:
            raise
        except Exception as error:
            # pybind11 raises arbitrary errors, and for a failed constructor a TypeError without a reason.
            raise self._failed("cannot build the engine", f"{type(error).__name__}: {error}") from error

    def _run(self) -> memoryview:
        module, logger = self._library.module, self._library.logger
        builder = module.Builder(logger)
        network = builder.create_network(self._flags(module))
        parser = module.OnnxParser(network, logger)
        self._parse(parser)
        self._check_tensors(network)
        config = self._config(builder)
        plan = builder.build_serialized_network(network, config)
        if self._cancellation.cancelled:
            raise CancelledError("the build was stopped; no engine was written")
        if plan is None:
            raise self._failed("cannot build the engine")
        self._keep_measurements(config)
        return memoryview(plan)

    @staticmethod
    def _flags(module: Any) -> int:
        """Return flags: TensorRT 10 must be asked for strongly typed networks; later ones have no others."""
        flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def _parse(self, parser: Any) -> None:
        with stored(self._form.model) as given:
            parsed = parser.parse_from_file(str(given)) if isinstance(given, Path) else parser.parse(given)
        if parsed:
            return
        errors = []
        for index in range(parser.num_errors):
            error = parser.get_error(index)
            # The first TensorRT 10 versions do not say which node it was.
            name, kind = (str(getattr(error, part)()) if hasattr(error, part) else "" for part in _NODE)
            errors.append(f"{_node(name, kind)}{error.desc()}")
        if not errors:
            raise self._failed("does not take the graph")
        library = self._library
        said = "; ".join(errors)[:LONGEST_DETAIL]  # the log repeats it at length
        raise EngineBuildError(f"{library.backend} {library.version} does not take the graph: {said}{self._way_out()}")

    def _way_out(self) -> str:
        """Return what to do about operators that ONNX Runtime's optimiser and quantiser put into a model."""
        nodes = self._form.model.graph.node
        own = {node.op_type for node in nodes if node.domain == RUNTIME_DOMAIN or node.op_type.startswith("QLinear")}
        if not own:
            return ""
        return f". ONNX Runtime wrote {', '.join(sorted(own))} into the model: give the one before it was optimised"

    def _check_tensors(self, network: Any) -> None:
        inputs = (network.get_input(index) for index in range(network.num_inputs))
        outputs = (network.get_output(index) for index in range(network.num_outputs))
        for specs, tensors in ((self._form.inputs, inputs), (self._form.outputs, outputs)):
            found = dict(_described(tensors))
            if found != _expected(specs):
                raise EngineBuildError(
                    f"{self._library.backend} interprets the graph differently: it sees {found}, not {_expected(specs)}"
                )

    def _config(self, builder: Any) -> Any:
        module, settings = self._library.module, self._settings
        config = builder.create_builder_config()
        if self._library.backend == "tensorrt-rtx":
            config.num_compute_capabilities = len(settings.compute_capabilities)
            for index, capability in enumerate(settings.compute_capabilities):
                if not config.set_compute_capability(member(module, capability), index):
                    raise self._failed(f"does not build for compute capability {capability}")
        if settings.precision == "tf32":
            config.set_flag(module.BuilderFlag.TF32)
        else:
            config.clear_flag(module.BuilderFlag.TF32)
        if settings.workspace_bytes is not None:
            config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        if settings.optimization_level is not None:
            config.builder_optimization_level = settings.optimization_level
        if self._form.rows[0] != self._form.rows[1]:
            self._add_profile(builder, config)
        if settings.timing_cache is not None and self._library.backend == "tensorrt":
            use_timing_cache(self._library, config, settings.timing_cache, self._watcher.note)
        phases = Phases(self._watcher.progress)
        config.progress_monitor = progress_monitor(module, phases, self._cancellation)
        return config

    def _add_profile(self, builder: Any, config: Any) -> None:
        """Add a profile for strips of any of the rows; kernels are chosen for the highest."""
        least, most = self._form.rows
        rest = self._form.inputs[self._image].shape[1:]
        profile = builder.create_optimization_profile()
        profile.set_shape(self._image, (least, *rest), (most, *rest), (most, *rest))
        if config.add_optimization_profile(profile) < 0:
            raise self._failed(f"refuses strips of {least} to {most} rows")

    def _keep_measurements(self, config: Any) -> None:
        if self._settings.timing_cache is not None and self._library.backend == "tensorrt":
            keep_timing_cache(config, self._settings.timing_cache)

    def _failed(self, what: str, detail: str = "") -> EngineBuildError:
        logged = self._library.lines.since(self._mark)
        said = "; ".join(filter(None, (detail, logged)))[:LONGEST_DETAIL]
        hint = ""
        if self._settings.workspace_bytes is not None and "workspace" in said.lower():
            hint = f" (the workspace is {self._settings.workspace_bytes} bytes; give more with --workspace)"
        library = self._library
        return EngineBuildError(f"{library.backend} {library.version} {what}{hint}: {said or 'it gave no reason'}")


_NODE = ("node_name", "node_operator")


def _node(name: str, kind: str) -> str:
    return f"at the node {name or '?'} ({kind or '?'}): " if name or kind else ""


def _described(tensors: Iterable[Any]) -> Iterable[tuple[str, str]]:
    for tensor in tensors:
        yield str(tensor.name), _text(DTYPES.get(tensor.dtype.name, tensor.dtype.name), tuple(tensor.shape))


def _expected(specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    return {name: _text(spec.dtype, spec.shape) for name, spec in specs.items()}


def _text(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {list(shape)}"
