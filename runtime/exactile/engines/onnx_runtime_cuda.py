"""A network in ONNX Runtime on a GPU, at one shape, on the caller's memory and stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.engines.claims import check_claims
from exactile.engines.cuda_placement import left_to_the_cpu
from exactile.engines.cuda_provider import PROVIDER, check_provider, fail_on_device, load_cuda_library, quiet
from exactile.engines.device_network import taken
from exactile.engines.onnx_runtime import add_weights, declared, metadata_of, session_options
from exactile.errors import DeviceError, EngineError

NOT_ON_CUDA = "exactile.not_on_cuda"
"""The metadata key of the reason why a graph must not run here: a kernel that gives other pixels without an error."""

FUSIONS_WITH_TF32 = ["ConvActivationFusion", "ConvAddActivationFusion"]
"""Fusion of convolutions with what follows: if cuDNN has no such kernel in float32, ONNX Runtime retries with TF32
allowed, regardless of the setting.
"""

_HOST_THREADS = 1  # it only puts kernels on the stream


class OnnxRuntimeCudaNetwork:
    """One graph at one shape; implements ``exactile.engines.device_network.DeviceNetwork``.

    ``graph`` is a serialised ONNX model whose image input is ``(height, width, C)`` with dimensions of these names;
    ``tile_shape`` is (H, W), ``dimensions`` are the sizes of further named ones, such as those of carries.
    ``output_shapes`` are those of all outputs, by name. ``weights`` are constants that the graph keeps outside;
    ``claims`` are entries of a contract, which the graph's metadata must hold as well. Constants such as statistics are
    inputs like all others. Strips of another height need another network: a graph with open sizes computes them on the
    CPU.

    Everything runs on the device ``ordinal`` in its primary context, on ``stream`` (a CUstream), which outlives the
    network. ``memory_limit_bytes`` is the most that it allocates for weights and activations; None for no limit.
    ``tf32`` lets convolutions round their inputs to 10 bits of mantissa, which is faster and changes values.

    Raises DeviceError if ONNX Runtime cannot run all of it on that GPU (nothing is left to the CPU), DeviceMemoryError,
    and EngineError if it refuses the graph, or graph and arguments disagree.
    """

    def __init__(
        self,
        graph: bytes,
        *,
        tile_shape: tuple[int, int],
        output_shapes: Mapping[str, tuple[int, ...]],
        ordinal: int,
        stream: int,
        dimensions: Mapping[str, int] | None = None,
        memory_limit_bytes: int | None = None,
        tf32: bool = False,
        weights: Mapping[str, NDArray[Any]] | None = None,
        claims: Mapping[str, str] | None = None,
    ) -> None:
        if not stream:
            raise DeviceError("ONNX Runtime needs a stream of its own; 0, the default stream, is not one")
        self._rows, self._ordinal, self._stream = tile_shape[0], ordinal, stream
        self._session: Any = None
        self._ort = load_cuda_library()
        options = session_options(self._ort, tile_shape, _HOST_THREADS)
        options.use_deterministic_compute = True  # of several kernels, one with a fixed order of summation
        # Quantised weights become float32 when the graph is opened. Left as they are for integer kernels, which are the
        # CPU's alone, biases of 32 bits would have no kernel.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        for name, size in (dimensions or {}).items():
            options.add_free_dimension_override_by_name(name, size)
        add_weights(self._ort, options, weights or {}, graph)
        self._run_options = self._ort.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        asked = provider_options(ordinal, stream, memory_limit_bytes, tf32=tf32)
        try:
            self._session = self._open(graph, options, asked)
            check_claims(metadata_of(self._session), claims or {}, "the graph")
            _check_doubt(self._session)
            self._tensors = tensors_of(self._session, output_shapes)
        except BaseException:
            self.close()
            raise

    @property
    def capturable(self) -> bool:
        """Always False: some kernels copy lists of addresses from pinned memory that is freed when the run is over.

        A replay would copy whatever lies there then. There is no way to know which kernels a network has.
        """
        return False

    def enqueue(self, addresses: Mapping[str, int], *, rows: int, stream: int) -> None:
        """Put one inference on ``stream``, the stream of the network, and return.

        The first one blocks: it allocates activations and loads kernels. Raises EngineError, DeviceError,
        DeviceMemoryError.
        """
        if self._session is None:
            raise EngineError("the engine is closed; open a new one")
        if (rows, stream) != (self._rows, self._stream):
            raise EngineError(
                f"the network was made for {self._rows} rows on stream {self._stream:#x}, not for {rows} rows on "
                f"stream {stream:#x}; make another one"
            )
        binding = self._bound(taken(addresses, self._tensors))
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:  # noqa: BLE001  # its exceptions share no base class
            fail_on_device(self._ort, error, f"running {rows} rows")

    def close(self) -> None:
        """Release it, once its work is done; safe to call twice."""
        self._session = None

    def _open(self, graph: bytes, options: Any, asked: dict[str, str]) -> Any:
        with quiet(self._ort):
            try:
                session = self._ort.InferenceSession(
                    graph,
                    options,
                    providers=[(PROVIDER, asked)],
                    disabled_optimizers=FUSIONS_WITH_TF32,
                    enable_fallback=0,
                )
            except Exception as error:  # its exceptions share no base class
                left = left_to_the_cpu(self._ort, error, graph, options, asked)
                if left:
                    raise DeviceError(left) from error
                fail_on_device(self._ort, error, "loading the graph")
        session.disable_fallback()
        check_provider(self._ort, session, asked)
        return session

    def _bound(self, addresses: Mapping[str, int]) -> Any:
        if addresses.keys() != self._tensors.keys():
            raise EngineError(
                f"the network needs an address for each of {', '.join(sorted(self._tensors))}; "
                f"there are {', '.join(sorted(addresses))}"
            )
        binding = self._session.io_binding()
        for name, tensor in self._tensors.items():
            bind = binding.bind_input if tensor.is_input else binding.bind_output
            bind(name, "cuda", self._ordinal, tensor.dtype, list(tensor.shape), addresses[name])
        return binding


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTensor:
    """An input or output of a graph at one shape; ``dtype`` is numpy's scalar type."""

    is_input: bool
    dtype: type[np.generic]
    shape: tuple[int, ...]


def provider_options(ordinal: int, stream: int, memory_limit_bytes: int | None, *, tf32: bool) -> dict[str, str]:
    """Return options of the CUDA provider, as strings. Whatever affects results is set explicitly.

    1. The arena grows by what is requested, not to the next power of two: the rest belongs to other networks.
    2. TF32 is off unless requested: results are those of float32.
    3. cuDNN's heuristics choose convolution algorithms. Versions of ONNX Runtime whose default measures them take the
       one that was fastest that time: two GPUs, or two runs, could choose differently, and their pixels would differ.
       The choice does not depend on a limit for workspace either.
    4. Matrix products are not chosen by measuring, either.
    5. Channels first, as in the graph, and bias added after the convolution: one kernel for each node.
    6. Layer normalisation sums in float32.
    7. No CUDA graph by ONNX Runtime: it would replay the addresses of the first run, whatever is bound later.
    """
    options = {
        "device_id": str(ordinal),
        "user_compute_stream": str(stream),
        "arena_extend_strategy": "kSameAsRequested",  # 1
        "use_tf32": str(int(tf32)),  # 2
        "cudnn_conv_algo_search": "HEURISTIC",  # 3
        "cudnn_conv_use_max_workspace": "1",  # 3
        "tunable_op_enable": "0",  # 4
        "tunable_op_tuning_enable": "0",  # 4
        "prefer_nhwc": "0",  # 5
        "fuse_conv_bias": "0",  # 5
        "enable_skip_layer_norm_strict_mode": "1",  # 6
        "enable_cuda_graph": "0",  # 7
    }
    if memory_limit_bytes is not None:
        options["gpu_mem_limit"] = str(memory_limit_bytes)
    return options


def _check_doubt(session: Any) -> None:
    """Raise DeviceError if the graph declares that the CUDA provider would compute it differently."""
    said = session.get_modelmeta().custom_metadata_map.get(NOT_ON_CUDA)
    if said:
        raise DeviceError(
            f"ONNX Runtime's CUDA provider may give other pixels for this network: {said}. What to do: "
            "--engine tensorrt, with an engine built for it, or --device cpu"
        )


def tensors_of(session: Any, output_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, DeviceTensor]:
    """Return all inputs and outputs of ``session``. Raises EngineError if sizes are open, or differ from the given
    ones.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    tensors = {argument.name: _input(inputs, argument.name) for argument in inputs}
    has = {argument.name for argument in outputs}
    if has != output_shapes.keys():
        raise EngineError(f"the graph has outputs {sorted(has)}; shapes are given for {sorted(output_shapes)}")
    return tensors | {name: _output(outputs, name, shape) for name, shape in output_shapes.items()}


def _input(arguments: Any, name: str) -> DeviceTensor:
    shape, dtype = declared(arguments, name, "input")
    sizes = tuple(size for size in shape if isinstance(size, int))
    if len(sizes) != len(shape):
        raise EngineError(f"the graph's input {name!r} has shape {shape}; the sizes of all its dimensions are needed")
    return DeviceTensor(is_input=True, dtype=np.dtype(dtype).type, shape=sizes)


def _output(arguments: Any, name: str, shape: tuple[int, ...]) -> DeviceTensor:
    says, dtype = declared(arguments, name, "output")
    if len(says) != len(shape) or any(isinstance(a, int) and a != b for a, b in zip(says, shape, strict=True)):
        raise EngineError(f"the graph's output {name!r} has shape {says}, not {shape}")
    return DeviceTensor(is_input=False, dtype=np.dtype(dtype).type, shape=shape)
