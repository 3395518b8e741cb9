"""What ``--device`` and ``--engine`` mean: what was asked for is what runs, or an error says why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from exactile.built_engine import Backend
from exactile.contract import DeployedModel
from exactile.cuda.choice import chosen_devices, open_driver, parse_devices
from exactile.cuda.protocol import DeviceInfo
from exactile.engines.families import EngineFamily, OnnxRuntimeCudaFamily, TensorRTFamily
from exactile.errors import DeviceError, OptionError
from exactile.processors.gpu import GpuProcessor
from exactile.processors.host import HostProcessor
from exactile.processors.protocol import Processor

EngineName = Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)
BACKENDS: tuple[Backend, ...] = get_args(Backend)


def open_processor(
    model: DeployedModel,
    *,
    device: str = "auto",
    engine: str = "auto",
    device_memory_bytes: int | None = None,
    threads: int | None = None,
    keep: bool = False,
) -> Processor:
    """What a session of ``model`` computes on.

    ``device``: ``cpu``; ``cuda:0``, ``cuda:0,cuda:1``, ``cuda:all``: these GPUs or an error; ``auto``: all GPUs of the
    first one's kind if there are any that can run the model, else the CPU.

    ``engine``: ``onnxruntime``, ``tensorrt`` or ``tensorrt-rtx``, the latter two with ``:fp16`` or the like for the
    precision of the engines that were built; ``auto``: on GPUs TensorRT where engines that fit were built, else ONNX
    Runtime.

    Raises OptionError, and DeviceError with the reasons.
    """
    name, _, precision = engine.partition(":")
    if name not in ENGINE_NAMES or (precision and name not in BACKENDS):
        raise OptionError(f"an engine is one of {', '.join(ENGINE_NAMES)}, or tensorrt:fp16; got {engine!r}")
    asked = parse_devices(device)
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
        family = _family(model, name, precision, infos)
    except DeviceError as error:
        if asked != "auto" or name in BACKENDS:
            raise
        return HostProcessor(model, threads=threads, keep=keep, reason=f"not {infos[0].name}: {error}")
    return GpuProcessor(model, driver, infos, family, memory_bytes=device_memory_bytes)


def check_one_kind(infos: tuple[DeviceInfo, ...]) -> None:
    """Raises DeviceError for GPUs of different kinds: tiles of one image would not agree in their last digits."""
    for info in infos[1:]:
        if _kind(info) != _kind(infos[0]):
            raise DeviceError(
                f"cuda:{infos[0].ordinal} is a {infos[0].name} and cuda:{info.ordinal} a {info.name}: on GPUs of "
                "different kinds tiles would not agree in their last digits; choose GPUs of one kind"
            )


def _kind(info: DeviceInfo) -> tuple[str, tuple[int, int]]:
    return info.name, info.compute_capability


def _family(model: DeployedModel, name: str, precision: str, infos: tuple[DeviceInfo, ...]) -> EngineFamily:
    """The engines that ``name`` stands for. Raises DeviceError that says of each why not."""
    if model.contract.obstacles:
        raise DeviceError("a network that cannot be tiled exactly runs on the CPU only: --device cpu")
    if model.contract.geometry.placed:
        raise DeviceError(
            "operators of this network depend on the position in the image, and run on the CPU only: --device cpu"
        )
    if model.levels:
        raise DeviceError(
            "a network that takes statistics of the whole image runs on the CPU only: --device cpu, or freeze those of "
            "other images (exactile measure, exactile convert --freeze-statistics)"
        )
    built: list[Callable[[], EngineFamily]] = [
        lambda backend=backend: TensorRTFamily(model, backend, precision, infos)  # type: ignore[misc]
        for backend in BACKENDS
        if name == backend or (name == "auto" and any(e.backend == backend for e in model.engines))
    ]
    if name in {"auto", "onnxruntime"}:
        built.append(lambda: OnnxRuntimeCudaFamily(model))
    reasons = []
    for make in built:
        try:
            return make()
        except DeviceError as error:
            reasons.append(str(error))
    raise DeviceError(". ".join(reasons))
