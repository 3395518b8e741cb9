"""Load OpenVINO on demand, compile graphs for one shape on the CPU, and turn its failures into errors."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from numpy.typing import NDArray

from exactile.engines.claims import check_claims
from exactile.engines.graph_weights import addressed
from exactile.errors import CancelledError, EngineError, OptionError
from exactile.machine.memory import return_freed_memory

DEVICE = "CPU"
LONGEST_DETAIL = 400
"""Characters of OpenVINO's message that are passed on."""

NO_CACHE = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")
"""The setting that releases compiled code with its engine. By default the CPU library keeps the code of the last 1024
operators, and engines of 30 tile shapes, opened one after the other, left 40 MiB behind; with this, 5.
"""

WAY_OUT = "run it with --engine onnxruntime"
Precision = Literal["f32", "bf16"]
_UNREAD = re.compile(
    r"(?:not supported|unsupported|No conversion rule|OpenConversion|not been converted)", re.IGNORECASE
)
_OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate", "out of memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVino:
    """The module, and the one ``Core`` of this process."""

    module: Any
    core: Any

    @property
    def version(self) -> str:
        """The release: ``2026.4.1``."""
        return str(self.module.__version__).partition("-")[0]

    @property
    def has_bfloat16(self) -> bool:
        """Whether this CPU computes in bfloat16."""
        return "BF16" in self.core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


_loaded: list[OpenVino] = []


def load_openvino() -> OpenVino:
    """Return OpenVINO, imported at the first call. Raises EngineError with installation advice if it is missing."""
    if not _loaded:
        os.environ.setdefault(*NO_CACHE)
        try:
            import openvino

            core = openvino.Core()
            core.get_property(DEVICE, "FULL_DEVICE_NAME")  # its library for CPUs is loaded here, not at the first tile
        except Exception as error:
            text = one_line(error)
            raise EngineError(
                f"openvino cannot be imported ({text}); install it with: pip install 'exactile[cpu-openvino]'"
            ) from error
        _loaded.append(OpenVino(module=openvino, core=core))
    return _loaded[0]


def check_precision(library: OpenVino, precision: str) -> Precision:
    """Return what ``precision`` asks for; "" is float32. Raises OptionError, also if this CPU does not have it."""
    if precision in {"", "f32"}:
        return "f32"
    if precision != "bf16":
        raise OptionError(f"OpenVINO computes in f32 or bf16, not in {precision!r}: --engine openvino:bf16")
    if not library.has_bfloat16:
        raise OptionError(
            "--engine openvino:bf16 needs a CPU that computes in bfloat16 (avx512_bf16 or amx_bf16), which this one "
            "does not. What to do: --engine openvino, in float32"
        )
    return "bf16"


@dataclass(slots=True, kw_only=True)
class CompiledGraph:
    """A graph that was compiled for one shape, and its only request. Owns both.

    ``inputs`` and ``outputs`` are shape and dtype by name; arrays are bound where they are, and live until the next.
    """

    library: OpenVino
    request: Any
    inputs: Mapping[str, tuple[tuple[int, ...], str]]
    outputs: Mapping[str, tuple[tuple[int, ...], str]]
    _kept: Any
    _bound: dict[str, NDArray[Any]]

    def run(self, arrays: Mapping[str, NDArray[Any]], doing: str, cancelled: Callable[[], bool]) -> None:
        """Bind inputs and outputs by name, C-contiguous, and run. Raises EngineError, CancelledError."""
        for name, array in arrays.items():
            if name in self.inputs or name in self.outputs:
                self._bind(name, array)
        try:
            self.request.start_async()
            if cancelled():
                self.request.cancel()
            self.request.wait()
        except Exception as error:
            if cancelled():
                raise CancelledError("the engine was cancelled") from error
            fail(error, doing)
        if cancelled():  # a request that was cancelled may end silently
            raise CancelledError("the engine was cancelled")

    def _bind(self, name: str, array: NDArray[Any]) -> None:
        known = self._bound.get(name)
        if known is array:
            return
        shape, dtype = self.inputs[name] if name in self.inputs else self.outputs[name]
        if array.shape != shape:
            raise EngineError(f"{name!r} has shape {array.shape}, but the engine was opened for {shape}")
        if array.dtype != dtype:
            raise EngineError(f"{name!r} is {array.dtype}, but the graph has {dtype}")
        if not array.flags.c_contiguous:
            raise EngineError(f"{name!r} with strides {array.strides} is not C-contiguous; copy it first")
        if name in self.outputs and not array.flags.writeable:
            raise EngineError("the array for the result is read-only; give one that can be written")
        self.request.set_tensor(name, self.library.module.Tensor(array, shared_memory=True))
        self._bound[name] = array


def compile_graph(
    library: OpenVino,
    graph: bytes,
    weights: Mapping[str, NDArray[Any]],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    threads: int,
    precision: Precision,
    claims: Mapping[str, str],
    what: str,
) -> CompiledGraph:
    """Compile ``graph``, ``what`` it is, with inputs of ``shapes``. Raises EngineError.

    ``claims`` are entries that the graph's metadata must have.
    """
    held = addressed(graph, weights)
    check_claims(held.metadata, claims, what)
    try:
        network = library.core.read_model(io.BytesIO(held.graph))
    except Exception as error:  # noqa: BLE001  # its exceptions share no base class
        fail(error, f"reading {what}")
    known = {name for one in network.inputs for name in one.get_names()}
    for name in shapes:
        if name not in known:
            raise EngineError(f"{what} has no input {name!r}; it has {', '.join(map(repr, sorted(known)))}")
    try:
        network.reshape({name: library.module.PartialShape(list(shape)) for name, shape in shapes.items()})
        compiled = library.core.compile_model(network, DEVICE, _options(threads, precision))
        request = compiled.create_infer_request()
    except Exception as error:  # noqa: BLE001
        fail(error, f"compiling {what}")
    try:
        inputs, outputs = _described(compiled.inputs), _described(compiled.outputs)
    except Exception as error:  # noqa: BLE001  # a shape that depends on values
        fail(error, f"compiling {what} for one shape")
    del network
    return_freed_memory()
    return CompiledGraph(
        library=library, request=request, inputs=inputs, outputs=outputs, _kept=(compiled, held), _bound={}
    )


def _options(threads: int, precision: Precision) -> dict[str, Any]:
    """Return settings: one request at a time, in the requested precision.

    Threads are not bound to cores: engines side by side would be bound to the same ones.
    """
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": precision,
        "EXECUTION_MODE_HINT": "ACCURACY" if precision == "f32" else "PERFORMANCE",
    }


def _described(ports: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        name: (tuple(port.get_shape()), port.get_element_type().to_dtype().name)
        for port in ports
        for name in port.get_names()
    }


def fail(error: Exception, doing: str) -> NoReturn:
    """Raise an EngineError that says what OpenVINO was doing, and a remedy."""
    text = one_line(error)
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
        raise EngineError(
            f"out of memory while {doing}; use smaller tiles (--tile) or a smaller budget (--memory): {text}"
        ) from error
    raise EngineError(f"OpenVINO failed while {doing}; {WAY_OUT}: {text}") from error


def one_line(error: Exception | str) -> str:
    """Return the message of OpenVINO, in one line, without places in its sources, cut."""
    text = re.sub(r"(?:Exception from|Check '.*?' failed at) \S+?:\d+:?", " ", str(error))
    return " ".join(text.split())[:LONGEST_DETAIL]
