"""The reference: one pass of plain ONNX Runtime over the image itself; padded and cropped if it is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort

from exactile.geometry import AxisGeometry, Geometry

RUNTIME_ERRORS = (
    ort.capi.onnxruntime_pybind11_state.Fail,
    ort.capi.onnxruntime_pybind11_state.InvalidArgument,
    ort.capi.onnxruntime_pybind11_state.RuntimeException,
)


def _pads(axis: AxisGeometry, size: int, border: str) -> tuple[int, int]:
    """Pixels before and after the image, worked out from the words of the documentation."""
    if border == "model":
        return 0, axis.accepted_size(size) - size
    before = -(-max(axis.before, 0) // axis.stride) * axis.stride + axis.offset
    after = -(-max(axis.after, 0) // axis.stride) * axis.stride + axis.stride
    return before, axis.accepted_size(before + size + after) - before - size


def whole_pass(
    model: bytes,
    image: np.ndarray,
    geometry: Geometry,
    border: str = "model",
    *,
    scale=1.0,
    mean=0.0,
    std=1.0,
    runs: Callable[[bytes, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """The network's own output (C, H', W') float32 for ``image`` (H, W, C); cropped to it where it had to be padded.

    ``runs`` is another engine's ``given_pass``.
    """
    height, width = image.shape[:2]
    pads = [_pads(geometry.y, height, border), _pads(geometry.x, width, border)]
    ways = [pads] if border != "model" else [[(0, 0)] * 2, [pads[0], (0, 0)], [(0, 0), pads[1]], pads]
    for padding in ways:
        padded = np.pad(image, [*padding, (0, 0)], mode="reflect" if border == "model" else border)
        values = (padded.astype(np.float32) / np.float32(scale) - np.float32(mean)) / np.float32(std)
        try:
            output = (runs or given_pass)(model, values)
        except (*RUNTIME_ERRORS, RuntimeError):  # the latter is OpenVINO's
            if padding is ways[-1]:
                raise
        else:
            if min(output.shape):
                break
    crops = []
    for axis, size, around in ((geometry.y, height, padding[0]), (geometry.x, width, padding[1])):
        if border != "model":
            first = int((around[0] - axis.offset) * axis.scale)
            crops.append(slice(first, first + -(-(size * axis.scale) // 1)))
        else:
            crops.append(slice(0, -(-(size * axis.scale + axis.size_constant) // 1)) if any(around) else slice(None))
    return output[:, crops[0], crops[1]]


def given_pass(model: bytes, values: np.ndarray) -> np.ndarray:
    """The output (C, H', W') for ``values`` (H, W, C) float32 as they are. Raises RUNTIME_ERRORS."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Tests run beside each other: threads that wait would burn the CPUs of others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options)
    (output,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(values.transpose(2, 0, 1)[None])})
    return np.asarray(output[0])


def own_pass(model: bytes, values: np.ndarray) -> np.ndarray | None:
    """The same; None where ONNX Runtime refuses the size, or where nothing comes out."""
    try:
        output = given_pass(model, values)
    except RUNTIME_ERRORS:
        return None
    return output if min(output.shape) else None
