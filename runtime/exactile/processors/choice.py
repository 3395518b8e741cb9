"""Open what ``--device`` and ``--engine`` ask for, or raise an error that says why not; never fall back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

from exactile.contract import DeployedModel
from exactile.contract.built_engine import Backend
from exactile.cuda.choice import chosen_devices, open_driver, parse_devices
from exactile.cuda.protocol import DeviceInfo
from exactile.engines.device_partials import WITHOUT_GPU_PASSES, DevicePartials
from exactile.engines.host_families import OpenVinoFamily
from exactile.errors import DeviceError, OptionError
from exactile.processors.host import HostProcessor
from exactile.processors.protocol import Processor

if TYPE_CHECKING:
    from exactile.engines.families import EngineFamily

EngineName = Literal["auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)
Engines = tuple["EngineFamily", tuple["EngineFamily", ...]]
"""Engines of the result, and of each pass before it."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)
OPENVINO = "openvino"


def open_processor(
    model: DeployedModel,
    *,
    device: str = "auto",
    engine: str = "auto",
    device_memory_bytes: int | None = None,
    threads: int | None = None,
    keep: bool = False,
) -> Processor:
    """Open the processor of a session of ``model``.

    ``device``: ``cpu``; ``cuda:0``, ``cuda:0,cuda:1``, ``cuda:all``: these GPUs or an error; ``auto``: all GPUs of the
    first one's kind if there are any that can run the model, else the CPU.

    ``engine``: ``onnxruntime``; ``openvino``, which runs on CPUs, with ``:bf16`` in bfloat16; ``tensorrt`` or
    ``tensorrt-rtx``, which run on GPUs, with ``:fp16`` or the like for the precision of the built engines; ``auto``: on
    GPUs TensorRT if engines that fit were built, else ONNX Runtime.

    Raises OptionError, EngineError if a package is missing, and DeviceError with the reasons.
    """
    name, precision = _parse_engine(engine)
    asked = parse_devices(device)
    if name == OPENVINO:
        return _openvino(model, precision, device, threads=threads, keep=keep)
    if asked == "cpu":
        if name in BACKENDS:
            raise OptionError(f"--engine {name} runs on GPUs; with --device cpu, leave it out")
        return HostProcessor(model, threads=threads, keep=keep)
    try:
        driver = open_driver()
        infos = chosen_devices(driver, "all" if asked == "auto" else asked)
        if asked == "auto":
            infos = tuple(info for info in infos if _kind(info) == _kind(infos[0]))
        check_one_kind(infos)
    except DeviceError:
        if asked != "auto" or name in BACKENDS:
            raise
        return HostProcessor(model, threads=threads, keep=keep)
    try:
        if asked == "auto" and name not in BACKENDS:
            _check_all_sizes(model)
        family, levels = _engines(model, name, precision, infos)
    except DeviceError as error:
        if asked != "auto" or name in BACKENDS:
            raise
        return HostProcessor(model, threads=threads, keep=keep, reason=f"not {infos[0].name}: {error}")
    from exactile.processors.gpu import GpuProcessor  # a machine without GPUs does not load what works on them

    return GpuProcessor(model, driver, infos, family, levels=levels, memory_bytes=device_memory_bytes)


def _parse_engine(engine: str) -> tuple[str, str]:
    """Return its name and precision. Raises OptionError."""
    name, _, precision = engine.partition(":")
    if name not in ENGINE_NAMES or (precision and name not in (*BACKENDS, OPENVINO)):
        raise OptionError(f"an engine is one of {', '.join(ENGINE_NAMES)}, or tensorrt:fp16; got {engine!r}")
    return name, precision


def _openvino(model: DeployedModel, precision: str, device: str, *, threads: int | None, keep: bool) -> HostProcessor:
    if parse_devices(device) not in {"auto", "cpu"}:
        raise OptionError(f"--engine {OPENVINO} runs on the CPU; with --device {device}, leave it out")
    return HostProcessor(model, threads=threads, keep=keep, family=OpenVinoFamily(precision))


def check_one_kind(infos: tuple[DeviceInfo, ...]) -> None:
    """Raise DeviceError for GPUs of different kinds: tiles of one image would not agree in their last digits."""
    for info in infos[1:]:
        if _kind(info) != _kind(infos[0]):
            raise DeviceError(
                f"cuda:{infos[0].ordinal} is a {infos[0].name} and cuda:{info.ordinal} a {info.name}: on GPUs of "
                "different kinds tiles would not agree in their last digits; choose GPUs of one kind"
            )


def _kind(info: DeviceInfo) -> tuple[str, tuple[int, int]]:
    return info.name, info.compute_capability


def _engines(model: DeployedModel, name: str, precision: str, infos: tuple[DeviceInfo, ...]) -> Engines:
    """Return the engines for ``name``. Raises DeviceError that says of each why it cannot be used."""
    if model.contract.obstacles:
        raise DeviceError("a network that cannot be tiled exactly runs on the CPU only: --device cpu")
    if model.contract.geometry.placed:
        raise DeviceError(
            "operators of this network depend on the position in the image, and run on the CPU only: --device cpu"
        )
    _check_levels(model)
    built: list[Callable[[], Engines]] = [
        lambda backend=backend: _tensorrt(model, backend, precision, infos)  # type: ignore[misc]
        for backend in BACKENDS
        if name == backend or (name == "auto" and any(e.backend == backend for e in model.engines))
    ]
    if name in {"auto", "onnxruntime"}:
        built.append(lambda: _onnx_runtime(model))
    reasons = []
    for make in built:
        try:
            return make()
        except DeviceError as error:
            reasons.append(str(error))
    raise DeviceError(". ".join(reasons))


def _check_levels(model: DeployedModel) -> None:
    """Raise DeviceError if passes over the image cannot run on a GPU."""
    if any(level.on_device is None for level in model.levels):
        raise DeviceError(
            "this network takes statistics of the whole image, and was deployed without graphs that find them on a "
            f"GPU. What to do: convert the model again, or {WITHOUT_GPU_PASSES}"
        )


def _check_all_sizes(model: DeployedModel) -> None:
    """Raise DeviceError if GPUs would refuse images of some sizes that the CPU accepts."""
    if model.levels and any(one.placed is not None for one in (model, *(level.model for level in model.levels))):
        raise DeviceError(
            "a network that takes statistics of the whole image, and has operators that depend on the position at some "
            "sizes, accepts all sizes on the CPU only"
        )


def _onnx_runtime(model: DeployedModel) -> Engines:
    from exactile.engines.families import OnnxRuntimeCudaFamily

    levels = [OnnxRuntimeCudaFamily(level.device_model, DevicePartials.of(level)) for level in model.levels]
    return OnnxRuntimeCudaFamily(model), tuple(levels)


def _tensorrt(model: DeployedModel, backend: Backend, precision: str, infos: tuple[DeviceInfo, ...]) -> Engines:
    from exactile.engines.families import TensorRTFamily

    family = TensorRTFamily(model, backend, precision, infos)
    levels = []
    for number in range(1, len(model.levels) + 1):
        try:
            levels.append(TensorRTFamily(model, backend, family.precision, infos, number))
        except DeviceError as error:
            raise DeviceError(f"pass {number} of {len(model.levels)} over the image: {error}") from error
    return family, tuple(levels)
