"""A network that is one CUDA kernel, in place of TensorRT: the pipeline on a GPU without any engine installed.

What it computes is a 3 x 3 convolution of small integers, so ONNX Runtime's labels on the CPU are its oracle.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx

from benchmarks.gpu_kit.rehearsal import rehearsing
from exactile.contract import DeployedModel
from exactile_converters.deploy import deploy
from exactile_converters.device.form import tile_form
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support import tensorrt_stand_in
from tests.support.tensorrt_stand_in import EmulatedGpu, Span, TensorRTStandIn

SOURCE = Path(__file__).with_name("kernels") / "box_threshold.cu"
THRESHOLD = 1147
"""Half of nine samples of 255: noise gives about as many pixels of either class."""
_BLOCK = (32, 8)


def box_model() -> DeployedModel:
    """Return a model: class 1 where the sum of 3 x 3 grey samples exceeds THRESHOLD; ties go to class 0, as arg max
    does.
    """
    network = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 17]>
    box (float[1, 1, H, W] image) => (float[1, 2, H, W] scores)
    <float[2, 1, 3, 3] w = {{{", ".join(["0"] * 9 + ["1"] * 9)}}}, float[2] b = {{{THRESHOLD}, 0}}>
    {{ scores = Conv <pads = [1, 1, 1, 1]> (image, w, b) }}
    """)
    return deploy(prepare_network(network, name="box"), image_dtype="uint8", output="labels")


def with_copy_engine(
    model: DeployedModel, folder: Path, tile: tuple[int, int], capability: tuple[int, int], *, batch: int = 1
) -> DeployedModel:
    """Return ``model`` with one "engine" for tiles of (height, width)."""
    form = tile_form(model, tile, batch=batch)
    folder.mkdir(parents=True, exist_ok=True)
    engine = tensorrt_stand_in.build(
        form.model,
        folder,
        batch=batch,
        rows=form.rows,
        columns=form.columns,
        outputs={name: spec.shape for name, spec in form.outputs.items()},
    )
    return replace(model, engines=(replace(engine, compute_capabilities=(capability,)),))


@contextmanager
def in_place_of_tensorrt(kernel: Kernel, binding: str) -> Iterator[None]:
    """Run ``kernel`` for engines in this process, on the binding of this name; the emulated GPU runs the network
    itself.
    """
    if rehearsing():
        from tests.emulation.driver import load

        device: tensorrt_stand_in.StandInDevice = EmulatedGpu(load())
    else:
        device = kernel
    before = sys.modules.get("tensorrt")
    sys.modules["tensorrt"] = TensorRTStandIn(device).module
    os.environ["EXACTILE_CUDA_BINDING"] = binding
    try:
        yield
    finally:
        del sys.modules["tensorrt"]
        if before is not None:
            sys.modules["tensorrt"] = before


class Kernel:
    """Puts ``box_threshold`` on streams; implements ``tests.support.tensorrt_stand_in.StandInDevice``.

    It is loaded into the context that is current at the first call. ``spins`` is how long a pixel takes.
    """

    def __init__(self, capability: tuple[int, int], folder: Path, spins: int = 0) -> None:
        self.spins = spins
        self._cubin = b"" if rehearsing() else compiled(capability, folder)
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._function = ctypes.c_void_p()

    def enqueue(self, stream: int, work: Callable[[], None], reads: Sequence[Span], writes: Sequence[Span]) -> int:
        """Launch once over all tiles of the batch. Return CUDA's status."""
        if not self._function.value and (status := self._load()):
            return status
        (image, _), (labels, size) = reads[0], writes[0]
        height, width = _extent(work)
        batch = size // (height * width)
        arguments = (
            *(ctypes.c_uint64(image), ctypes.c_uint64(labels), ctypes.c_int(height), ctypes.c_int(width)),
            *(ctypes.c_int(THRESHOLD), ctypes.c_int(self.spins)),
        )
        pointers = (ctypes.c_void_p * len(arguments))(
            *(ctypes.cast(ctypes.byref(each), ctypes.c_void_p) for each in arguments)
        )
        columns, rows = _BLOCK
        grid = (-(-width // columns), -(-height // rows), batch)
        return int(
            self._driver.cuLaunchKernel(
                self._function,
                *map(ctypes.c_uint, (*grid, columns, rows, 1, 0)),
                ctypes.c_void_p(stream),
                pointers,
                None,
            )
        )

    def allocate(self, size_bytes: int) -> int | None:
        address = ctypes.c_uint64()
        status = self._driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size_bytes))
        return address.value if status == 0 else None

    def free(self, address: int) -> None:
        self._driver.cuMemFree_v2(ctypes.c_uint64(address))

    def _load(self) -> int:
        module = ctypes.c_void_p()
        status = int(self._driver.cuModuleLoadData(ctypes.byref(module), self._cubin))
        if status == 0:
            status = int(self._driver.cuModuleGetFunction(ctypes.byref(self._function), module, b"box_threshold"))
        return status


def compiled(capability: tuple[int, int], folder: Path) -> bytes:
    """Return the kernel for this compute capability, by the toolkit's compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "box_threshold.cubin"
    architecture = f"-arch=sm_{capability[0]}{capability[1]}"
    subprocess.run(["nvcc", "-cubin", architecture, "-o", str(target), str(SOURCE)], check=True)
    return target.read_bytes()


def _extent(work: Callable[[], None]) -> tuple[int, int]:
    """Return (height, width) of the inference's image."""
    (_, _, shape, _), *_ = work._inputs  # noqa: SLF001  # the stand-in's record of one inference
    return shape[-3], shape[-2]  # (height, width, 1), or (batch, height, width, 1)
