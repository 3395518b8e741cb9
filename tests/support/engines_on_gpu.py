"""``python -m tests.support.engines_on_gpu NAME``: one inference on the real GPU, against ONNX Runtime on the CPU.

NAME is ``tensorrt``, ``tensorrt-rtx`` or ``onnxruntime``. Exits with 3, and prints why, where there is no such GPU or
library. It is no test module: the emulated driver must not be in the process.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from exactile.contract.built_engine import Backend, BuiltEngine, TensorSpec
from exactile.cuda.choice import open_driver
from exactile.cuda.ordinals import device_at
from exactile.cuda.protocol import Device, Driver, Stream
from exactile.engines.cuda_provider import load_cuda_library
from exactile.engines.device_network import DeviceNetwork
from exactile.engines.onnx_runtime_cuda import OnnxRuntimeCudaNetwork
from exactile.engines.rtx_gpus import rtx_refusal
from exactile.engines.tensorrt import TensorRTNetwork
from exactile.engines.tensorrt_library import load_tensorrt
from exactile.errors import DeviceError

UNAVAILABLE = 3
ROWS, COLUMNS, CLASSES = 8, 12, 4
MODULES: dict[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
WEIGHTS = ", ".join(map(str, np.random.default_rng(1).integers(-3, 4, CLASSES * 3 * 9)))
SCORES = onnx.parser.parse_model(f"""
<ir_version: 8, opset_import: ["" : 17]>
net (float[{ROWS}, {COLUMNS}, 3] image) => (float[{CLASSES}, {ROWS}, {COLUMNS}] scores)
<float[{CLASSES}, 3, 3, 3] w = {{{WEIGHTS}}}, int64[1] zero = {{0}}>
{{
    t = Transpose <perm = [2, 0, 1]> (image)
    x = Unsqueeze (t, zero)
    y = Conv <pads = [1, 1, 1, 1]> (x, w)
    scores = Squeeze (y, zero)
}}
""")


def real_plan(trt: Any, model: onnx.ModelProto, capability: tuple[int, int]) -> bytes:
    """``model`` built by the real TensorRT or RTX, in float32 without TF32."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString())
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(config, "set_compute_capability"):  # RTX builds for GPUs that are not here
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, "SM{}{}".format(*capability)), 0)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    return bytes(plan)


def tensorrt_network(device: Device, backend: Backend, folder: Path) -> DeviceNetwork:
    """``SCORES`` built for the device, and opened."""
    capability = device.info.compute_capability
    plan = real_plan(importlib.import_module(MODULES[backend]), SCORES, capability)
    path = folder / "scores.plan"
    path.write_bytes(plan)
    built = BuiltEngine(
        backend=backend,
        backend_version=load_tensorrt(backend).version,
        compute_capabilities=(capability,),
        precision="fp32",
        role="tile",
        batch=1,
        rows=(ROWS, ROWS),
        columns=COLUMNS,
        inputs={"image": TensorSpec(shape=(ROWS, COLUMNS, 3), dtype="float32")},
        outputs={"scores": TensorSpec(shape=(CLASSES, ROWS, COLUMNS), dtype="float32")},
        plan=path,
        plan_bytes=len(plan),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
    )
    return TensorRTNetwork(built, compute_capability=capability)


def onnx_runtime_network(stream: Stream) -> DeviceNetwork:
    """``SCORES`` on the first device."""
    return OnnxRuntimeCudaNetwork(
        SCORES.SerializeToString(),
        tile_shape=(ROWS, COLUMNS),
        output_shapes={"scores": (CLASSES, ROWS, COLUMNS)},
        ordinal=0,
        stream=stream.handle,
    )


def scores(device: Device, stream: Stream, network: DeviceNetwork, image: np.ndarray) -> np.ndarray:
    """What the network makes of ``image``."""
    result_bytes = CLASSES * ROWS * COLUMNS * 4
    given, made = device.memory.pinned(image.nbytes), device.memory.pinned(result_bytes)
    there, back = device.memory.allocate(image.nbytes), device.memory.allocate(result_bytes)
    given.array[:] = image.reshape(-1).view(np.uint8)
    stream.copy_in(there, given.array)
    network.enqueue({"image": there.address, "scores": back.address}, rows=ROWS, stream=stream.handle)
    stream.copy_out(made.array, back)
    stream.synchronize()
    return made.array.view(np.float32).reshape(CLASSES, ROWS, COLUMNS).copy()


def available(name: str) -> Driver:
    """The driver. Raises DeviceError where there is no GPU, or not what ``name`` stands for."""
    if name == "onnxruntime":
        load_cuda_library()
    else:
        load_tensorrt("tensorrt" if name == "tensorrt" else "tensorrt-rtx")
    driver = open_driver()
    device = device_at(driver.devices(), 0)
    if reason := rtx_refusal(name, device.compute_capability, device.name):
        raise DeviceError(reason)
    return driver


def check(name: str, driver: Driver) -> None:
    """Raises DeviceError or EngineError where it fails, AssertionError where results differ."""
    with ExitStack() as stack:
        device = driver.open(0)
        stack.callback(device.close)
        stack.enter_context(device.current())
        stream = device.stream()
        if name == "onnxruntime":
            network = onnx_runtime_network(stream)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            network = tensorrt_network(device, "tensorrt" if name == "tensorrt" else "tensorrt-rtx", folder)
        stack.callback(network.close)
        image = np.random.default_rng(0).random((ROWS, COLUMNS, 3), np.float32)
        found = scores(device, stream, network, image)
    cpu = onnxruntime.InferenceSession(SCORES.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = cpu.run(None, {"image": image})
    # Algorithms add in other orders, and some transform before; rounding to TF32 would differ ten times as much.
    assert np.allclose(found, wanted, rtol=0, atol=2e-4), np.abs(found - wanted).max()


def main(name: str) -> int:
    try:
        driver = available(name)
    except DeviceError as error:
        print(error)  # noqa: T201
        return UNAVAILABLE
    check(name, driver)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
