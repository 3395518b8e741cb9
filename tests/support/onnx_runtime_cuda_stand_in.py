"""A stand-in for ``onnxruntime-gpu``: the real ``onnxruntime``, and a CUDA provider that runs on the CPU.

``OnnxRuntimeCudaStandIn(device).module`` goes into ``sys.modules["onnxruntime"]``. Sessions on the CPU are real ones.
Sessions on the CUDA provider take addresses on the ``device``, and a run becomes an operation of the stream that the
session was made with; activations are memory that all runs of a session share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from tests.support.tensorrt_stand_in import Span, StandInDevice

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
FALLBACK_REFUSED = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU EP, but "
    "fallback to CPU EP has been explicitly disabled by the user."
)
OUT_OF_MEMORY = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 CUDA failure 2: out of memory ; GPU=0 ; "
    "expr=cudaMalloc((void**)&p, size);"
)


class OnnxRuntimeCudaStandIn:
    """The module, and how it fails.

    ``arena_bytes`` is what a session takes for activations at its first run. ``taken`` are the provider's options as
    the session tells them, where they are not those asked for; ``providers`` those that it has. ``fails`` are raised by
    the ``session`` that is opened or the ``run``. Old versions have no ``knows_strictness``: they fall back silently.
    ``without_kernel`` are the (operator, node) that the provider leaves to the CPU.
    """

    def __init__(self, device: StandInDevice, *, arena_bytes: int = 0, root: Path = Path("/nowhere")) -> None:
        self.device = device
        self.arena_bytes = arena_bytes
        self.providers = [CUDA, CPU]
        self.knows_strictness = True
        self.without_kernel: list[tuple[str, str]] = []
        self.taken: dict[str, str] = {}
        self.fails: dict[str, Exception] = {}
        self.sessions: list[CudaSession] = []
        self.module = ModuleType("onnxruntime")
        vars(self.module).update(
            {name: value for name, value in vars(onnxruntime).items() if not name.startswith("__")},
            __version__="1.31.1",
            __file__=str(root / "onnxruntime" / "__init__.py"),
            cuda_version="13.0",
            get_available_providers=lambda: [CUDA, CPU],
            InferenceSession=self._open,
        )

    def _open(self, path_or_bytes: bytes, sess_options: Any, providers: list[Any], **kwargs: Any) -> Any:
        if providers == [CPU]:
            return onnxruntime.InferenceSession(path_or_bytes, sess_options, providers)
        session = CudaSession(self, path_or_bytes, sess_options, providers, **kwargs)
        self.sessions.append(session)
        return session


def _entry(options: Any, name: str) -> str:
    """A session's entry; "" where it was not set, for which ONNX Runtime has an error."""
    try:
        return options.get_session_config_entry(name)
    except RuntimeError:
        return ""


class CudaSession:
    """As ``onnxruntime.InferenceSession``."""

    def __init__(
        self,
        stand_in: OnnxRuntimeCudaStandIn,
        path_or_bytes: bytes,
        sess_options: Any,
        providers: list[tuple[str, dict[str, str]]],
        enable_fallback: int = 1,
        disabled_optimizers: Sequence[str] = (),
    ) -> None:
        self._stand_in = stand_in
        self.fallbacks: tuple[int, str] = (enable_fallback, "enabled")
        """Whether opening may fall back, and whether running may."""
        ((name, self.options),) = providers
        assert name == CUDA
        assert set(map(type, self.options.values())) == {str}
        self.disabled_optimizers = disabled_optimizers
        self.float_weights = _entry(sess_options, "session.disable_quant_qdq") == "1"
        self.deterministic = sess_options.use_deterministic_compute
        self.strict = sess_options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        if "session" in stand_in.fails:
            raise stand_in.fails["session"]
        refused = CUDA not in stand_in.providers or stand_in.without_kernel
        if self.strict and stand_in.knows_strictness and refused:
            raise RuntimeError(FALLBACK_REFUSED)
        sess_options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")  # it does run on the CPU
        self._real = onnxruntime.InferenceSession(path_or_bytes, sess_options, providers=[CPU])
        self._arena: Span | None = None
        self._options = sess_options

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        assert self._options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"
        left = [SimpleNamespace(op_type=op, name=name) for op, name in self._stand_in.without_kernel]
        placed = {CUDA: [SimpleNamespace(op_type="Cast", name="f")], CPU: left}
        return [SimpleNamespace(ep_name=name, get_nodes=lambda nodes=nodes: nodes) for name, nodes in placed.items()]

    def get_providers(self) -> list[str]:
        return self._stand_in.providers

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CUDA: {**self.options, "do_copy_in_default_stream": "1", **self._stand_in.taken}, CPU: {}}

    def disable_fallback(self) -> None:
        self.fallbacks = (self.fallbacks[0], "disabled")

    def get_modelmeta(self) -> Any:
        return self._real.get_modelmeta()

    def get_inputs(self) -> Any:
        return self._real.get_inputs()

    def get_outputs(self) -> Any:
        return self._real.get_outputs()

    def io_binding(self) -> CudaBinding:
        return CudaBinding(self._real)

    def run_with_iobinding(self, iobinding: CudaBinding, run_options: Any = None) -> None:
        if "run" in self._stand_in.fails:
            raise self._stand_in.fails["run"]
        assert run_options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        assert iobinding.ordinals == {int(self.options["device_id"])}
        self._take_arena()
        arena = [self._arena] if self._arena else []
        status = self._stand_in.device.enqueue(
            int(self.options["user_compute_stream"]),
            lambda: self._real.run_with_iobinding(iobinding.real),
            iobinding.reads,
            [*iobinding.writes, *arena],
        )
        if status:
            raise RuntimeError(f"CUDA failure {status}: unspecified launch failure")

    def _take_arena(self) -> None:
        wanted = self._stand_in.arena_bytes
        if self._arena is not None or not wanted:
            return
        limit = int(self.options.get("gpu_mem_limit", 1 << 62))
        if wanted > limit:
            raise RuntimeError(f"Available memory of {limit} is smaller than requested bytes of {wanted}")
        address = self._stand_in.device.allocate(wanted)
        if address is None:
            raise RuntimeError(OUT_OF_MEMORY)
        self._arena = address, wanted

    def __del__(self) -> None:
        if getattr(self, "_arena", None):
            self._stand_in.device.free(self._arena[0])


class CudaBinding:
    """As ``onnxruntime.IOBinding``, for device memory that is host memory."""

    def __init__(self, session: Any) -> None:
        self.real = session.io_binding()
        self.reads: list[Span] = []
        self.writes: list[Span] = []
        self.ordinals: set[int] = set()

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: list[int], buffer_ptr: int
    ) -> None:
        self.reads.append(self._span(device_type, device_id, element_type, shape, buffer_ptr))
        self.real.bind_input(name, "cpu", 0, element_type, shape, buffer_ptr)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: list[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        self.writes.append(self._span(device_type, device_id, element_type, shape, buffer_ptr))
        self.real.bind_output(name, "cpu", 0, element_type, shape, buffer_ptr)

    def _span(self, device_type: str, device_id: int, element_type: Any, shape: Any, buffer_ptr: Any) -> Span:
        assert device_type == "cuda"
        self.ordinals.add(device_id)
        return buffer_ptr, math.prod(shape) * np.dtype(element_type).itemsize
