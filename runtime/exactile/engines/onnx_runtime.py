"""A network in ONNX Runtime on the CPU, at one tile shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from exactile.contract import POSITION
from exactile.engines.arena import SHARED_ARENA, share_allocator
from exactile.engines.claims import check_claims
from exactile.engines.threads import compute_threads
from exactile.errors import CancelledError, EngineError
from exactile.machine.memory import return_freed_memory
from exactile.plan.position import Position
from exactile.plan.strips import StripPlace

_PROVIDER = "CPUExecutionProvider"
_SILENT = 4  # errors come back as exceptions; ONNX Runtime would print them as well
_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
LONGEST_DETAIL = 400
"""Characters of ONNX Runtime's message that are passed on; it repeats whatever a graph holds."""

_NAME_OF_TENSOR = 8 << 3 | 2
_VARINT_REST = 0x7F

_OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory", "Available memory of")


class OnnxRuntimeEngine:
    """Runs one graph at one fixed tile shape; implements ``exactile.engines.protocol.Engine``.

    ``graph`` is a serialised ONNX model whose input ``input_name`` is ``(height, width, C)`` with dimensions of these
    names, and whose output ``output_name`` is ``(H', W')`` or ``(C', H', W')``. ``tile_shape`` is (H, W).
    ``activation_bytes`` is ``MemoryModel.activation_bytes(H, W)``: with it, activations live in a region of that size,
    shared by all engines of the process, and the peak memory is the predicted one; without it, ONNX Runtime grows its
    own heap, which takes up to twice as much. ``weights`` are constants that the graph keeps outside. ``claims`` are
    entries of a contract, which the graph's metadata must hold as well. ``constants`` are further inputs, the same for
    all tiles, as far as the graph has them; ``dims`` are sizes of further inputs, by the names of their dimensions.

    Raises EngineError if onnxruntime is missing or refuses the graph, or if graph and arguments disagree.
    """

    def __init__(
        self,
        graph: bytes,
        *,
        input_name: str,
        output_name: str,
        tile_shape: tuple[int, int],
        threads: int | None = None,
        activation_bytes: int | None = None,
        weights: Mapping[str, NDArray[Any]] | None = None,
        claims: Mapping[str, str] | None = None,
        constants: Mapping[str, NDArray[Any]] | None = None,
        dims: Mapping[str, int] | None = None,
    ) -> None:
        ort = load_library()
        options = session_options(ort, tile_shape, compute_threads(threads))
        for name, size in (dims or {}).items():
            options.add_free_dimension_override_by_name(name, size)
        self._session: Any = None
        self._input_name, self._output_name = input_name, output_name
        self._run_options = ort.RunOptions()
        self._cancelled = False
        if activation_bytes is not None:
            share_allocator(options)
            SHARED_ARENA.reserve(self, activation_bytes)
        try:
            add_weights(ort, options, weights or {}, graph)
            self._session = open_session(ort, graph, options)
            check_claims(metadata_of(self._session), claims or {}, "the graph")
            asked = {argument.name for argument in self._session.get_inputs()}
            self._constants = {name: array for name, array in (constants or {}).items() if name in asked}
            self._tile_shape, self._tile_dtype = declared(self._session.get_inputs(), input_name, "input")
            self._out_shape, self._out_dtype = declared(self._session.get_outputs(), output_name, "output")
            _check_overridden(self._tile_shape, tile_shape, input_name)
        except BaseException:
            self.close()
            raise
        return_freed_memory()

    def infer(
        self,
        tile: NDArray[Any],
        out: NDArray[Any],
        place: StripPlace | None = None,
        position: Position | None = None,
        *,
        inputs: Mapping[str, NDArray[Any]] | None = None,
        outputs: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Run ``tile`` ((H, W, C), C-contiguous) and fill ``out`` ((H', W') or (C', H', W'), C-contiguous).

        Nothing is copied: the network reads ``tile`` and writes ``out`` in place. ``position`` is the position of the
        tile in the image, for graphs that take it; ``inputs`` and ``outputs`` are further ones, by name. Raises
        EngineError if an array does not fit or ONNX Runtime fails; CancelledError after ``cancel``.
        """
        if self._session is None:
            raise EngineError("the engine is closed; open a new one")
        if self._cancelled:
            raise CancelledError("the engine was cancelled")
        if place is not None:
            raise EngineError("an engine for tiles cannot run strips")
        _check_array(tile, self._tile_shape, self._tile_dtype, "tile")
        _check_array(out, self._out_shape, self._out_dtype, "out")
        if not out.flags.writeable:
            raise EngineError("the array for the result is read-only; give one that can be written")
        read = {self._input_name: tile, **self._constants, **(inputs or {})}
        if position is not None:
            read[POSITION] = position
        binding = self._session.io_binding()
        for name, array in read.items():
            bind(binding.bind_input, name, array)
        for name, array in {self._output_name: out, **(outputs or {})}.items():
            bind(binding.bind_output, name, array)
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:
            if self._cancelled:
                raise CancelledError("the engine was cancelled") from error
            fail(error, f"running a tile of {self._tile_shape[0]} x {self._tile_shape[1]} pixels")

    def cancel(self) -> None:
        """Make a running and every later ``infer`` raise CancelledError; callable from any thread."""
        self._cancelled = True
        self._run_options.terminate = True

    def close(self) -> None:
        """Release the session and its memory; safe to call twice."""
        self._session = None
        SHARED_ARENA.release(self)


def load_library() -> Any:
    """Import and return ONNX Runtime. Raises EngineError with installation advice if it is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            f"onnxruntime cannot be imported ({error}); install it with: pip install 'exactile[cpu]'"
        ) from error
    return onnxruntime


def session_options(ort: Any, tile_shape: tuple[int, int], threads: int) -> Any:
    """Return options for a graph whose ``height`` and ``width`` are those of ``tile_shape``."""
    height, width = tile_shape
    if height < 1 or width < 1:
        raise EngineError(f"a tile of {height} x {width} pixels is empty")
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Planned for one fixed shape, patterns take a second copy of the activations at the second run.
    options.enable_mem_pattern = False
    # Waiting threads would burn the CPUs that decode and encode threads need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_free_dimension_override_by_name("height", height)
    options.add_free_dimension_override_by_name("width", width)
    return options


def open_session(ort: Any, graph: bytes, options: Any) -> Any:
    """Return a session on the CPU. Raises EngineError."""
    try:
        return ort.InferenceSession(graph, options, providers=[_PROVIDER])
    except Exception as error:  # noqa: BLE001  # its exceptions share no base class
        fail(error, "loading the graph")


def add_weights(ort: Any, options: Any, weights: Mapping[str, NDArray[Any]], graph: bytes) -> None:
    """Give a session those ``weights`` that its ``graph`` keeps outside, in place.

    Graphs share their weights, and ONNX Runtime refuses weights that a graph does not have.
    """
    held = {name: array for name, array in weights.items() if _tensor_name(name) in graph}
    if held:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in held.values()]
        options.add_external_initializers(list(held), values)


def _tensor_name(name: str) -> bytes:
    """Return how a serialised graph encodes the name of a tensor: field 8 of TensorProto, its length as a varint, the
    text.
    """
    text = name.encode()
    length, size = bytearray(), len(text)
    while size > _VARINT_REST:
        length.append(size & _VARINT_REST | _VARINT_REST + 1)
        size >>= 7
    return bytes((_NAME_OF_TENSOR, *length, size)) + text


def bind(bind_one: Any, name: str, array: NDArray[Any]) -> None:
    """Bind an input or output to ``array`` in place."""
    bind_one(name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)


def metadata_of(session: Any) -> Mapping[str, str]:
    """Return the metadata of the session's graph."""
    found: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    return found


def declared(arguments: Any, name: str, role: str) -> tuple[tuple[int | str | None, ...], str]:
    """Return shape and dtype of the graph's ``name``; dimensions that ONNX Runtime does not know are not ints."""
    by_name = {argument.name: argument for argument in arguments}
    if name not in by_name:
        raise EngineError(f"the graph has no {role} {name!r}; it has {', '.join(map(repr, by_name))}")
    dtype = by_name[name].type
    if dtype not in _DTYPES:
        raise EngineError(f"the graph's {role} {name!r} is {dtype}; supported are {', '.join(_DTYPES)}")
    return tuple(by_name[name].shape), _DTYPES[dtype]


def _check_overridden(shape: tuple[int | str | None, ...], tile_shape: tuple[int, int], name: str) -> None:
    if len(shape) != 3 or shape[:2] != tile_shape:
        raise EngineError(
            f"the graph's input {name!r} has shape {shape} at a tile of {tile_shape}; "
            "it must be (height, width, channels) with dimensions of these names"
        )


def _check_array(array: NDArray[Any], shape: tuple[int | str | None, ...], dtype: str, role: str) -> None:
    fits = array.ndim == len(shape) and all(
        size == asked or not isinstance(asked, int) for size, asked in zip(array.shape, shape, strict=False)
    )
    if not fits:
        raise EngineError(f"{role} has shape {array.shape}, but the engine was opened for {shape}")
    if array.dtype != np.dtype(dtype):
        raise EngineError(f"{role} is {array.dtype}, but the graph has {dtype}")
    if not array.flags.c_contiguous:
        raise EngineError(f"{role} with strides {array.strides} is not C-contiguous; copy it first")


def fail(error: Exception, doing: str) -> NoReturn:
    """Raise an EngineError that says what ONNX Runtime was doing, and a remedy if memory ran out."""
    text = one_line(error)
    if is_out_of_memory(error):
        raise EngineError(
            f"out of memory while {doing}; use smaller tiles (--tile) or a smaller budget (--memory): {text}"
        ) from error
    raise EngineError(f"ONNX Runtime failed while {doing}: {text}") from error


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def one_line(error: Exception | str) -> str:
    """Return the message of ONNX Runtime, in one line, cut."""
    return " ".join(str(error).split())[:LONGEST_DETAIL]
