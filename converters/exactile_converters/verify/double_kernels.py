"""Convolution and pooling in float64 for ONNX's reference evaluator, whose own kernels take a hundred times as long.

Windows are summed tap by tap: a tap reads a strided view of its padded input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

Array = NDArray[Any]


class Windows:
    """Windows along the axes of a map of ``sizes``: padding, and number of windows."""

    def __init__(self, sizes: Sequence[int], kernel: Sequence[int], attributes: Mapping[str, Any]) -> None:
        count = len(sizes)
        self.kernel = tuple(kernel)
        self.strides = tuple(attributes.get("strides") or (1,) * count)
        self.dilations = tuple(attributes.get("dilations") or (1,) * count)
        given = attributes.get("pads") or (0,) * (2 * count)
        pads, outputs = [], []
        for axis, size in enumerate(sizes):
            reach, stride = (self.kernel[axis] - 1) * self.dilations[axis] + 1, self.strides[axis]
            before, after = int(given[axis]), int(given[axis + count])
            mode = str(attributes.get("auto_pad") or "NOTSET")
            if mode.startswith("SAME"):
                missing = max(0, (-(-size // stride) - 1) * stride + reach - size)
                less, more = missing // 2, missing - missing // 2
                before, after = (more, less) if mode == "SAME_LOWER" else (less, more)
            elif mode == "VALID":
                before = after = 0
            left = size + before + after - reach
            found = (-(-left // stride) if attributes.get("ceil_mode") else left // stride) + 1
            if (found - 1) * stride >= size + before:  # a window in the padding alone
                found -= 1
            pads.append((before, after))
            outputs.append(found)
        self.pads, self.outputs = tuple(pads), tuple(outputs)

    def padded(self, image: Array, value: float) -> Array:
        """Return ``image`` with everything that windows reach: the padding, and what rounding up adds to it."""
        ends = []
        for axis, (before, after) in enumerate(self.pads):
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            size = image.shape[2 + axis]
            needed = (self.outputs[axis] - 1) * self.strides[axis] + reach - size - before
            ends.append((before, max(after, needed)))
        return np.pad(image, [(0, 0), (0, 0), *ends], constant_values=value)

    def taps(self, padded: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """Yield each tap of the kernel, and what all windows read there."""
        for tap in product(*map(range, self.kernel)):
            part = tuple(
                slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
                for at, dilation, count, stride in zip(tap, self.dilations, self.outputs, self.strides, strict=True)
            )
            yield tap, padded[(slice(None), slice(None), *part)]


class Conv(OpRun):
    def _run(self, image: Array, weights: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        group = attributes.get("group") or 1
        windows = Windows(image.shape[2:], weights.shape[2:], attributes)
        batch, outputs = image.shape[0], weights.shape[0]
        shape = batch, outputs, *windows.outputs
        found = np.zeros((batch, group, outputs // group, prod(windows.outputs)), image.dtype)
        taken = weights.reshape(1, group, outputs // group, *weights.shape[1:])
        for tap, part in windows.taps(windows.padded(image, 0)):
            found += taken[(slice(None),) * 4 + tap] @ part.reshape(batch, group, weights.shape[1], -1)
        return (_biased(found.reshape(shape), bias),)


class ConvTranspose(OpRun):
    def _run(self, image: Array, weights: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        group, sizes, kernel = attributes.get("group") or 1, image.shape[2:], weights.shape[2:]
        strides = tuple(attributes.get("strides") or (1,) * len(sizes))
        dilations = tuple(attributes.get("dilations") or (1,) * len(sizes))
        first, outputs = _cropped(sizes, kernel, strides, dilations, attributes)
        reach = [
            (size - 1) * s + (k - 1) * d + 1 for size, s, k, d in zip(sizes, strides, kernel, dilations, strict=True)
        ]
        room = [max(one, begin + size) for one, begin, size in zip(reach, first, outputs, strict=True)]
        batch, channels = image.shape[0], weights.shape[1]
        found = np.zeros((batch, group, channels, *room), image.dtype)
        given = image.reshape(batch, group, -1, prod(sizes))
        taken = weights.reshape(group, -1, *weights.shape[1:])
        for tap in product(*map(range, kernel)):
            made = taken[(slice(None),) * 3 + tap].transpose(0, 2, 1)[None] @ given
            part = tuple(
                slice(at * d, at * d + (size - 1) * s + 1, s)
                for at, d, size, s in zip(tap, dilations, sizes, strides, strict=True)
            )
            found[(slice(None),) * 3 + part] += made.reshape(batch, group, channels, *sizes)
        part = tuple(slice(begin, begin + size) for begin, size in zip(first, outputs, strict=True))
        whole = found[(slice(None),) * 3 + part].reshape(batch, group * channels, *outputs)
        return (_biased(whole, bias),)


class MaxPool(OpRun):
    def _run(self, image: Array, **attributes: Any) -> tuple[Array, ...]:
        if len(self.output) > 1:
            raise NotImplementedError("the places of the largest values")
        windows = Windows(image.shape[2:], attributes["kernel_shape"], attributes)
        found = np.full((*image.shape[:2], *windows.outputs), -np.inf)
        for _, part in windows.taps(windows.padded(image.astype(np.float64), -np.inf)):
            np.maximum(found, part, out=found)
        return (found.astype(image.dtype),)


class AveragePool(OpRun):
    def _run(self, image: Array, **attributes: Any) -> tuple[Array]:
        windows = Windows(image.shape[2:], attributes["kernel_shape"], attributes)
        total = sum(part for _, part in windows.taps(windows.padded(image, 0)))
        counted = np.ones((1, 1, *image.shape[2:]))
        if attributes.get("count_include_pad"):
            counted = np.pad(counted, [(0, 0), (0, 0), *windows.pads], constant_values=1)
            places = _beyond(windows, counted)
        else:
            places = windows.padded(counted, 0)
        pixels = sum(part for _, part in windows.taps(places))
        return (np.asarray(total / pixels),)


FASTER = (Conv, ConvTranspose, MaxPool, AveragePool)


def _biased(found: Array, bias: Array | None) -> Array:
    return found if bias is None else found + bias.reshape(1, -1, *(1,) * (found.ndim - 2))


def _beyond(windows: Windows, counted: Array) -> Array:
    """Exclude from the count what rounding up adds to the padding."""
    ends = []
    for axis in range(counted.ndim - 2):
        reach = (windows.kernel[axis] - 1) * windows.dilations[axis] + 1
        needed = (windows.outputs[axis] - 1) * windows.strides[axis] + reach - counted.shape[2 + axis]
        ends.append((0, max(0, needed)))
    return np.pad(counted, [(0, 0), (0, 0), *ends])


def _cropped(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    attributes: Mapping[str, Any],
) -> tuple[list[int], list[int]]:
    """Return, for each axis, the first row of a full transposed convolution in the result, and the number of rows."""
    count = len(sizes)
    more = tuple(attributes.get("output_padding") or (0,) * count)
    pads, shape = attributes.get("pads") or (0,) * (2 * count), attributes.get("output_shape")
    mode = str(attributes.get("auto_pad") or "NOTSET")
    first, outputs = [], []
    for axis, size in enumerate(sizes):
        full = (size - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 + more[axis]
        if shape or mode.startswith("SAME"):
            wanted = int(shape[axis]) if shape else size * strides[axis]
            total = max(0, full - wanted)
            before = total // 2 if mode == "SAME_UPPER" else total - total // 2
        else:
            before = 0 if mode == "VALID" else int(pads[axis])
            wanted = full - before - (0 if mode == "VALID" else int(pads[axis + count]))
        first.append(before)
        outputs.append(wanted)
    return first, outputs
