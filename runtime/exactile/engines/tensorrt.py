"""Run a built TensorRT engine on device memory, with the calls that TensorRT 10, 11 and RTX have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from exactile.contract.built_engine import BuiltEngine, TensorSpec
from exactile.engines.device_network import taken
from exactile.engines.rtx_gpus import capability_text, rtx_refusal
from exactile.engines.tensorrt_library import TensorRTLibrary, load_tensorrt
from exactile.errors import BundleError, DeviceError, DeviceMemoryError, EngineError

ALIGNMENT_BYTES = 256
"""TensorRT's alignment of tensor addresses."""

_VARIES = -1
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


class TensorRTNetwork:
    """One engine with one execution context; implements ``exactile.engines.device_network.DeviceNetwork``.

    The context has one piece of scratch memory: all work goes on one stream, or waits for the work before it. The
    device whose ``compute_capability`` is given must be current when it is created, used and closed.

    Raises BundleError if the engine's file is not the one that was built, DeviceError if this library or device cannot
    run it, DeviceMemoryError, and EngineError if the engine differs from ``built``.
    """

    def __init__(self, built: BuiltEngine, *, compute_capability: tuple[int, int]) -> None:
        self._built = built
        self._runtime: Any = None
        self._engine: Any = None
        self._settings: Any = None
        self._context: Any = None
        self._rows: int | None = None
        self._stream: int | None = None
        _check_device(built, compute_capability)
        library = load_tensorrt(built.backend)
        _check_version(built, library)
        plan = read_plan(built)
        self._library = library
        try:
            self._open(plan)
        except BaseException:
            self.close()
            raise

    @property
    def workspace_bytes(self) -> int:
        """Device memory of the execution context; weights not included."""
        engine = self._opened(self._engine)
        if hasattr(engine, "device_memory_size_v2"):
            return int(engine.device_memory_size_v2)
        return int(engine.device_memory_size)  # of early 10

    @property
    def capturable(self) -> bool:
        """Whether ``enqueue`` can be captured in a CUDA graph: with a fixed shape; RTX is asked once it has run."""
        context = self._opened(self._context)
        if any(map(_varies, self._built.inputs.values())):
            return False
        if self._stream is None or not hasattr(context, "is_stream_capturable"):
            return True
        with self._library.doing("asking whether it can be captured in a CUDA graph"):
            return bool(context.is_stream_capturable(self._stream))

    def enqueue(self, addresses: Mapping[str, int], *, rows: int, stream: int) -> None:
        """Put one inference over ``rows`` image rows (of every tile of the batch) on ``stream``, and return.

        Raises EngineError, DeviceError, DeviceMemoryError.
        """
        self._opened(self._context)  # no name for it here: an error's traceback would keep it after ``close``
        addresses = taken(addresses, self._built.inputs)
        self._check_addresses(addresses)
        self._set_rows(rows)
        with self._library.doing(f"running {self._name()} on {rows} rows") as call:
            for name, address in addresses.items():
                if not self._context.set_tensor_address(name, address):
                    call.failed()
            if not self._context.execute_async_v3(stream):
                call.failed()
        self._stream = stream

    def close(self) -> None:
        """Release it, once its work is done; safe to call twice."""
        self._context = None  # in this order: each lives on the next
        self._settings = None
        self._engine = None
        self._runtime = None

    def _open(self, plan: bytes) -> None:
        library, name = self._library, self._name()
        with library.doing(f"loading {name}") as call:
            self._runtime = library.module.Runtime(library.logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                call.failed()
            check_tensors(self._built, library, self._engine)
        with library.doing(f"making an execution context for {name}") as call:
            self._context = self._new_context()
            if self._context is None:
                call.failed(silent=DeviceMemoryError)

    def _new_context(self) -> Any:
        """Return the only context.

        RTX compiles kernels where the engine runs. For varying shapes it would begin with general kernels and switch to
        those for the shape during a run, when they are ready: then two tiles would not agree bit for bit.
        """
        strategies = getattr(self._library.module, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is None or not any(map(_varies, self._built.inputs.values())):
            return self._engine.create_execution_context()
        self._settings = self._engine.create_runtime_config()
        self._settings.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return self._engine.create_execution_context(self._settings)

    def _set_rows(self, rows: int) -> None:
        least, most = self._built.rows
        if not least <= rows <= most:
            raise EngineError(f"{self._name()} takes {_numbers(least, most)} rows, not {rows}")
        if rows == self._rows:
            return
        self._rows = None
        with self._library.doing(f"setting {self._name()} to {rows} rows") as call:
            for name, spec in self._built.inputs.items():
                shape = tuple(rows if size == _VARIES else size for size in spec.shape)
                if shape != spec.shape and not self._context.set_input_shape(name, shape):
                    call.failed()
            if unknown := self._context.infer_shapes():
                raise EngineError(f"{self._name()} at {rows} rows leaves the shapes of {', '.join(unknown)} open")
        self._rows = rows

    def _check_addresses(self, addresses: Mapping[str, int]) -> None:
        wanted = self._built.inputs.keys() | self._built.outputs.keys()
        if addresses.keys() != wanted:
            missing, more = sorted(wanted - addresses.keys()), sorted(addresses.keys() - wanted)
            raise EngineError(f"{self._name()} needs an address for each tensor; missing {missing}, too many {more}")
        for name, address in addresses.items():
            if address <= 0 or address % ALIGNMENT_BYTES:
                raise EngineError(
                    f"{name!r} of {self._name()} is at address {address:#x}; TensorRT takes multiples of "
                    f"{ALIGNMENT_BYTES} only"
                )

    def _opened(self, what: Any) -> Any:
        if what is None:
            raise EngineError("the engine is closed; open a new one")
        return what

    def _name(self) -> str:
        return f"the {self._built.role} engine {self._built.plan.name}"


def read_plan(built: BuiltEngine) -> bytes:
    """Return the serialised engine. Raises BundleError if the file is not the one that was built."""
    try:
        plan = built.plan.read_bytes()
    except OSError as error:
        raise BundleError(
            f"the engine {built.plan} cannot be read ({error.strerror or error}); build it again"
        ) from error
    if len(plan) != built.plan_bytes:
        raise BundleError(f"the engine {built.plan} has {len(plan)} bytes, not {built.plan_bytes}; build it again")
    sha256 = hashlib.sha256(plan).hexdigest()
    if sha256 != built.plan_sha256:
        raise BundleError(f"the engine {built.plan} has SHA-256 {sha256}, not {built.plan_sha256}; build it again")
    return plan


def _check_device(built: BuiltEngine, compute_capability: tuple[int, int]) -> None:
    if reason := rtx_refusal(built.backend, compute_capability):
        raise DeviceError(f"the engine {built.plan.name}: {reason}")
    if compute_capability not in built.compute_capabilities:
        has = capability_text((compute_capability,))
        made_for = capability_text(built.compute_capabilities)
        raise DeviceError(
            f"the engine {built.plan.name} was built for GPUs of compute capability {made_for or 'none'}; this one has "
            f"{has}: build an engine for it, or run on another GPU"
        )


def _check_version(built: BuiltEngine, library: TensorRTLibrary) -> None:
    if library.version != built.backend_version:
        raise DeviceError(
            f"the engine {built.plan.name} was built by {built.backend} {built.backend_version}, but "
            f"{library.version} is installed, which cannot be relied on to load it: build the engine again, or install "
            f"{built.backend}=={built.backend_version}"
        )


def check_tensors(built: BuiltEngine, library: TensorRTLibrary, engine: Any) -> None:
    """Raise EngineError if the deserialised ``engine`` has other tensors than ``built``."""
    said = {**_described(built.inputs, "input"), **_described(built.outputs, "output")}
    found = dict(_tensors(library, engine))
    if said != found:
        differing = sorted(name for name in said.keys() | found.keys() if said.get(name) != found.get(name))
        raise EngineError(
            f"the engine {built.plan.name} is not what its record says, build it again: "
            + "; ".join(
                f"{name!r} is {found.get(name, 'not there')}, not {said.get(name, 'there')}" for name in differing
            )
        )
    for name, spec in built.inputs.items():
        if _varies(spec):
            _check_rows(built, engine, name, spec.shape.index(_VARIES))


def _check_rows(built: BuiltEngine, engine: Any, name: str, axis: int) -> None:
    least, _, most = (tuple(shape)[axis] for shape in engine.get_tensor_profile_shape(name, 0))
    if not least <= built.rows[0] <= built.rows[1] <= most:
        raise EngineError(
            f"the engine {built.plan.name} takes {_numbers(least, most)} rows of {name!r}, its record says "
            f"{_numbers(*built.rows)}: build it again"
        )


def _tensors(library: TensorRTLibrary, engine: Any) -> Iterator[tuple[str, str]]:
    inputs = library.module.TensorIOMode.INPUT
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        role = "input" if engine.get_tensor_mode(name) == inputs else "output"
        trt_dtype = engine.get_tensor_dtype(name).name
        yield name, _description(role, _DTYPES.get(trt_dtype, trt_dtype), tuple(engine.get_tensor_shape(name)))


def _described(specs: Mapping[str, TensorSpec], role: str) -> dict[str, str]:
    return {name: _description(role, spec.dtype, spec.shape) for name, spec in specs.items()}


def _description(role: str, dtype: str, shape: tuple[int, ...]) -> str:
    return f"an {role} {dtype} {shape}"


def _varies(spec: TensorSpec) -> bool:
    return _VARIES in spec.shape


def _numbers(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"
