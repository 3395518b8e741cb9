"""The reference: one pass of plain ONNX Runtime over the whole image, padded and cropped by numpy."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from exactile.geometry import AxisGeometry, Geometry


def _pads(axis: AxisGeometry, size: int, border: str) -> tuple[int, int]:
    """Pixels before and after the image, worked out from the words of the documentation."""
    if border == "model":
        return 0, axis.accepted_size(size) - size
    before = -(-max(axis.before, 0) // axis.stride) * axis.stride + axis.offset
    after = -(-max(axis.after, 0) // axis.stride) * axis.stride + axis.stride
    return before, axis.accepted_size(before + size + after) - before - size


def whole_pass(
    model: bytes, image: np.ndarray, geometry: Geometry, border: str = "model", *, scale=1.0, mean=0.0, std=1.0
) -> np.ndarray:
    """The network's own output (C, H', W') float32 for ``image`` (H, W, C), cropped to the image."""
    height, width = image.shape[:2]
    pads = [_pads(geometry.y, height, border), _pads(geometry.x, width, border)]
    padded = np.pad(image, [*pads, (0, 0)], mode="reflect" if border == "model" else border)
    values = (padded.astype(np.float32) / np.float32(scale) - np.float32(mean)) / np.float32(std)
    session = ort.InferenceSession(model)
    name = session.get_inputs()[0].name
    (output,) = session.run(None, {name: np.ascontiguousarray(values.transpose(2, 0, 1)[None])})
    crops = []
    for axis, size, (before, _) in ((geometry.y, height, pads[0]), (geometry.x, width, pads[1])):
        if border == "model":
            crops.append(slice(0, -(-(size * axis.scale + axis.size_constant) // 1)))
        else:
            first = int((before - axis.offset) * axis.scale)
            crops.append(slice(first, first + -(-(size * axis.scale) // 1)))
    return output[0][:, crops[0], crops[1]]
