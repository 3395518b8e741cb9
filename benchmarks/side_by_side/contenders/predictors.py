"""The network as a function of a window: (1, C, H, W) float32 -> (1, K, H, W) float32, in either library."""

from __future__ import annotations

import json
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.side_by_side.task import Task

Array = NDArray[np.float32]


class Predictor(Protocol):
    def __call__(self, window: Array) -> Array: ...


def open_predictor(task: Task) -> Predictor:
    """Open ONNX Runtime, or torch if the options say so."""
    if task.options.get("library") == "torch":
        return TorchPredictor(task)
    return OnnxPredictor(task)


class OnnxPredictor:
    """ONNX Runtime with its defaults: any window size, waiting threads spin, a growing arena."""

    def __init__(self, task: Task) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = task.threads
        self._session = onnxruntime.InferenceSession(
            task.network / "network.onnx", options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, window: Array) -> Array:
        return self._session.run(None, {"image": np.ascontiguousarray(window)})[0]


class TorchPredictor:
    """Torch on the CPU in channels-last memory, which is faster there than the default."""

    def __init__(self, task: Task) -> None:
        import torch

        torch.set_num_threads(task.threads)
        self._torch = torch
        self.module = open_module(task)

    def __call__(self, window: Array) -> Array:
        with self._torch.inference_mode():
            return self.module(self._torch.from_numpy(np.ascontiguousarray(window))).numpy()


def open_module(task: Task) -> Any:
    """Return the network as a torch module, weights loaded, in eval mode."""
    import torch

    from models.unet import UNet

    said = json.loads((task.network / "network.json").read_text())
    module = UNet(said["channels"], said["classes"], features=said["features"], depth=said["depth"])
    module.load_state_dict(torch.load(task.network / "weights.pth", weights_only=True))
    return module.eval().to(memory_format=torch.channels_last)
