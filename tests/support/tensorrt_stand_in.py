"""A stand-in for the module ``tensorrt``: its "plans" are ONNX models, which ONNX Runtime runs on the CPU.

``TensorRTStandIn(device).module`` goes into ``sys.modules`` under the name of the real one. It offers only what the
real bindings offer, by the same parameter names (``test_tensorrt_adapter_conformance.py``). An inference becomes an
operation of the ``device``'s stream: it reads inputs, writes outputs and uses the context's scratch memory when it runs
there, not before. How it can fail is set on the stand-in itself, which the adapter never sees.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from exactile.contract.built_engine import Backend, BuiltEngine, EngineRole, TensorSpec
from tests.emulation.driver import EmulatedCallError, Emulation

Span = tuple[int, int]
"""An address and a number of bytes from there on."""

NAMES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
VERSIONS = {"tensorrt": "11.4.0.106", "tensorrt-rtx": "1.7.1.116"}
CAPABILITIES = ((8, 6), (8, 9))
OUT_OF_MEMORY = "[defaultAllocator.cpp::allocate::57] Error Code 1: Cuda Runtime (cudaError 2: out of memory)"
PROFILE = "stand_in_rows"


class StandInDevice(Protocol):
    """Where inferences run: the emulated GPU, or the calling thread."""

    def enqueue(self, stream: int, work: Callable[[], None], reads: Sequence[Span], writes: Sequence[Span]) -> int:
        """Let ``work`` be the next operation of ``stream``, with the memory that it reads and writes. CUDA's status."""

    def allocate(self, size_bytes: int) -> int | None:
        """An address, or None when the device has no more."""

    def free(self, address: int) -> None: ...


class HostDevice:
    """Runs at once, in host memory."""

    def __init__(self, limit_bytes: int = 1 << 40) -> None:
        self.streams: list[int] = []
        self.held: dict[int, Any] = {}
        self._limit = limit_bytes

    def enqueue(self, stream: int, work: Callable[[], None], reads: Sequence[Span], writes: Sequence[Span]) -> int:
        self.streams.append(stream)
        work()
        return 0

    def allocate(self, size_bytes: int) -> int | None:
        if sum(map(len, self.held.values())) + size_bytes > self._limit:
            return None
        block = np.zeros(size_bytes, np.uint8)
        self.held[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, address: int) -> None:
        del self.held[address]


class EmulatedGpu:
    """Runs on the emulated driver's streams, in the memory of the device whose context is current."""

    def __init__(self, emulation: Emulation) -> None:
        self._emulation = emulation
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._driver.cuMemFree_v2.argtypes = (ctypes.c_uint64,)

    def enqueue(self, stream: int, work: Callable[[], None], reads: Sequence[Span], writes: Sequence[Span]) -> int:
        try:
            self._emulation.enqueue(stream, work, reads=reads, writes=writes, label="inference")
        except EmulatedCallError as error:
            return error.status
        return 0

    def allocate(self, size_bytes: int) -> int | None:
        address = ctypes.c_uint64()
        status = self._driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size_bytes))
        return address.value if status == 0 else None

    def free(self, address: int) -> None:
        self._driver.cuMemFree_v2(address)


def build(
    model: onnx.ModelProto,
    directory: Path,
    *,
    backend: Backend = "tensorrt",
    role: EngineRole = "tile",
    batch: int = 1,
    rows: tuple[int, int],
    columns: int,
    outputs: Mapping[str, tuple[int, ...]] | None = None,
) -> BuiltEngine:
    """``model`` as a plan of the stand-in in ``directory``. ``outputs``: shapes that the model does not tell."""
    model = onnx.load_from_string(model.SerializeToString())
    onnx.helper.set_model_props(model, {PROFILE: json.dumps(rows)})
    for value in model.graph.output:
        for dim, size in zip(value.type.tensor_type.shape.dim, (outputs or {}).get(value.name, ()), strict=False):
            if size >= 0:
                dim.dim_value = size
    plan = model.SerializeToString()
    path = directory / f"{role}.plan"
    path.write_bytes(plan)
    return BuiltEngine(
        backend=backend,
        backend_version=VERSIONS[backend],
        compute_capabilities=CAPABILITIES,
        precision="fp32",
        role=role,
        batch=batch,
        rows=rows,
        columns=columns,
        inputs={value.name: spec_of(value) for value in model.graph.input},
        outputs={value.name: spec_of(value) for value in model.graph.output},
        plan=path,
        plan_bytes=len(plan),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
    )


def spec_of(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    return TensorSpec(
        shape=tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim),
        dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
    )


class TensorRTStandIn:
    """The module, and how it fails.

    ``scratch_bytes`` is what a context takes for activations; every run of it uses them. The lines of ``fails`` are
    logged as errors by the call of that name (``deserialize``, ``context``, ``shape``, ``address``, ``execute``), which
    then fails as the real one does.
    """

    def __init__(self, device: StandInDevice, *, backend: Backend = "tensorrt", scratch_bytes: int = 0) -> None:
        self.device = device
        self.scratch_bytes = scratch_bytes
        self.capturable = True
        self.fails: dict[str, tuple[str, ...]] = {}
        self.settings: list[Any] = []
        """For each context that was made, its runtime settings."""
        self.module = _module(self, backend)

    def log(self, logger: Any, name: str) -> bool:
        """Whether the call ``name`` fails; its lines are logged."""
        for line in self.fails.get(name, ()):
            logger.log(self.module.ILogger.Severity.ERROR, line)
        return name in self.fails


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class Strategy(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


DTYPES = {
    "float32": DataType.FLOAT,
    "float16": DataType.HALF,
    "int8": DataType.INT8,
    "int32": DataType.INT32,
    "int64": DataType.INT64,
    "bool": DataType.BOOL,
    "uint8": DataType.UINT8,
}


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        pass

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


def _module(stand_in: TensorRTStandIn, backend: Backend) -> ModuleType:
    """A module of its own for each stand-in, as its classes know their device."""

    class Runtime(_Runtime):
        _stand_in = stand_in

    module = ModuleType(NAMES[backend])
    offered: dict[str, Any] = {
        "__version__": VERSIONS[backend],
        "ILogger": ILogger,
        "Runtime": Runtime,
        "DataType": DataType,
        "TensorIOMode": TensorIOMode,
    }
    if backend == "tensorrt-rtx":
        offered |= {
            "DynamicShapesKernelSpecializationStrategy": Strategy,
            "ICudaEngine": ICudaEngineOfRtx,
            "IExecutionContext": IExecutionContextOfRtx,
            "IRuntimeConfig": IRuntimeConfig,
        }
    else:
        offered |= {"ICudaEngine": ICudaEngine, "IExecutionContext": IExecutionContext}
    vars(module).update(offered)
    return module


class _Runtime:
    _stand_in: TensorRTStandIn

    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, ILogger):
            raise TypeError("__init__(): incompatible constructor arguments")
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if self._stand_in.log(self._logger, "deserialize"):
            return None
        try:
            return self._stand_in.module.ICudaEngine._made(self._stand_in, self._logger, bytes(serialized_engine))
        except (DecodeError, ValueError):
            self._logger.log(Severity.ERROR, "[stdArchiveReader.cpp::40] Error Code 1: Serialization (magicTag)")
            return None


class ICudaEngine:
    """Holds device memory for the weights: as many bytes as the plan has."""

    _stand_in: TensorRTStandIn

    @classmethod
    def _made(cls, stand_in: TensorRTStandIn, logger: ILogger, plan: bytes) -> ICudaEngine | None:
        self = cls()
        self._stand_in, self._logger = stand_in, logger
        model = onnx.load_from_string(plan)
        if not model.graph.node:
            raise ValueError("no graph")
        self._weights = _Memory.taken(stand_in, logger, len(plan))
        if self._weights is None:
            return None
        self._inputs = {value.name: spec_of(value) for value in model.graph.input}
        self._specs = self._inputs | {value.name: spec_of(value) for value in model.graph.output}
        props = {entry.key: entry.value for entry in model.metadata_props}
        self._rows: tuple[int, int] = tuple(json.loads(props[PROFILE]))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._known: dict[Any, dict[str, tuple[int, ...]]] = {}
        self._session = onnxruntime.InferenceSession(plan, options, providers=["CPUExecutionProvider"])
        return self

    @property
    def num_io_tensors(self) -> int:
        return len(self._specs)

    @property
    def device_memory_size_v2(self) -> int:
        return self._stand_in.scratch_bytes

    def get_tensor_name(self, index: int) -> str:
        return list(self._specs)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DTYPES[self._specs[name].dtype]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._specs[name].shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        least, most = self._rows
        return [_with_rows(self._inputs[name].shape, rows) for rows in (least, most, most)]

    def create_execution_context(self, strategy: Any = None) -> IExecutionContext | None:
        if strategy is not None:
            raise TypeError("create_execution_context(): incompatible function arguments")
        return self._context(None)

    def _output_shapes(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Fixed ones, or those that one run on zeros gives."""
        outputs = {name: spec.shape for name, spec in self._specs.items() if name not in self._inputs}
        if any(-1 in shape for shape in outputs.values()):
            key = tuple(sorted(shapes.items()))
            if key not in self._known:
                zeros = {name: np.zeros(shape, self._inputs[name].dtype) for name, shape in shapes.items()}
                results = self._session.run(list(outputs), zeros)
                self._known[key] = {name: result.shape for name, result in zip(outputs, results, strict=True)}
            return self._known[key]
        return outputs

    def _context(self, settings: Any) -> IExecutionContext | None:
        stand_in = self._stand_in
        if stand_in.log(self._logger, "context"):
            return None
        scratch = _Memory.taken(stand_in, self._logger, stand_in.scratch_bytes)
        if scratch is None:
            return None
        stand_in.settings.append(settings)
        return stand_in.module.IExecutionContext._made(self, scratch)


class IExecutionContext:
    @classmethod
    def _made(cls, engine: ICudaEngine, scratch: _Memory) -> IExecutionContext:
        self = cls()
        self._engine, self._scratch = engine, scratch
        self._addresses: dict[str, int] = {}
        self._shapes = {name: spec.shape for name, spec in engine._inputs.items()}
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._engine._stand_in.log(self._engine._logger, "shape"):
            return False
        built = self._engine._specs[name].shape
        least, most = self._engine._rows
        fits = len(shape) == len(built) and all(
            size == fixed or (fixed == -1 and least <= size <= most) for size, fixed in zip(shape, built, strict=True)
        )
        if not fits:
            self._error(f"IExecutionContext::setInputShape: Error Code 3: API Usage Error ({name} {shape})")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name, shape in self._shapes.items() if -1 in shape]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self._engine._stand_in.log(self._engine._logger, "address") or name not in self._engine._specs:
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        if engine._stand_in.log(engine._logger, "execute"):
            return False
        if self.infer_shapes() or self._addresses.keys() != engine._specs.keys():
            self._error("IExecutionContext::enqueueV3: Error Code 3: API Usage Error (not all is specified)")
            return False
        run = _Run(engine, dict(self._addresses), dict(self._shapes), self._scratch)
        status = engine._stand_in.device.enqueue(stream_handle, run, run.reads, run.writes)
        if status:
            self._error(f"[executionContext.cpp::enqueueV3] Error Code 1: Cuda Driver (cudaError {status})")
        return status == 0

    def _error(self, line: str) -> None:
        self._engine._logger.log(Severity.ERROR, line)


class IRuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = Strategy.LAZY


class ICudaEngineOfRtx(ICudaEngine):
    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any = None) -> IExecutionContext | None:
        return self._context(runtime_config)


class IExecutionContextOfRtx(IExecutionContext):
    def is_stream_capturable(self, stream: int) -> bool:
        return self._engine._stand_in.capturable


class _Memory:
    """Device memory, given back when nothing refers to it."""

    def __init__(self, device: StandInDevice, address: int, size_bytes: int) -> None:
        self._device, self.address, self.size_bytes = device, address, size_bytes

    @classmethod
    def taken(cls, stand_in: TensorRTStandIn, logger: ILogger, size_bytes: int) -> _Memory | None:
        address = stand_in.device.allocate(size_bytes) if size_bytes else 0
        if address is None:
            logger.log(Severity.ERROR, OUT_OF_MEMORY)
            return None
        return cls(stand_in.device, address, size_bytes)

    def __del__(self) -> None:
        if self.size_bytes:
            self._device.free(self.address)


class _Run:
    """One inference, with everything that it needs, as it was when it was put on the stream."""

    def __init__(
        self, engine: ICudaEngine, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]], scratch: _Memory
    ) -> None:
        self._session = engine._session
        dtypes = {name: np.dtype(spec.dtype) for name, spec in engine._specs.items()}
        self._inputs = [(name, dtypes[name], shape, addresses[name]) for name, shape in shapes.items()]
        made = engine._output_shapes(shapes)
        self._outputs = [(name, dtypes[name], shape, addresses[name]) for name, shape in made.items()]
        activations = [(scratch.address, scratch.size_bytes)] if scratch.size_bytes else []
        self.reads = _spans(self._inputs)
        self.writes = [*_spans(self._outputs), *activations]

    def __call__(self) -> None:
        binding = self._session.io_binding()
        for name, dtype, shape, address in self._inputs:
            binding.bind_input(name, "cpu", 0, dtype.type, list(shape), address)
        for name, dtype, shape, address in self._outputs:
            binding.bind_output(name, "cpu", 0, dtype.type, list(shape), address)
        self._session.run_with_iobinding(binding)


def _spans(tensors: list[tuple[str, np.dtype[Any], tuple[int, ...], int]]) -> list[Span]:
    return [(address, math.prod(shape) * dtype.itemsize) for _, dtype, shape, address in tensors]


def _with_rows(shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
    return tuple(rows if size == -1 else size for size in shape)
