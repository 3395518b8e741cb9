"""Choose crops of the user's images: some for calibration, others held out to compare labels on.

With several images, whole images are held out; in a single image, the crops lie in different parts::

    images  1   2   3   4   5   6   7        one image  |= calibration =|= held out =|
            c   h   c   c   h   c   c                   (along its longer side)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import ChannelError, ModelError, OptionError
from exactile.geometry import Box, Span
from exactile.image_statistics.measure import measure
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.protocol import ReadPlan, Source
from exactile_converters.graphs.io import Normalization
from exactile_converters.networks.network import Network

CROP_PX = 256
MOST_CROPS = 16
"""Most crops of each kind, spread over all images."""

HELD_OUT_EVERY = 3
"""One image in this many is held out, beginning with the second."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A crop: samples as stored, (H, W, C), and as the network sees them, float32 in the same order."""

    samples: Array
    pixels: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """Crops for calibration and held-out crops.

    ``apart`` says that they share no pixel; where the only image is too small for that, both are the same.
    """

    calibration: tuple[Crop, ...]
    held_out: tuple[Crop, ...]
    apart: bool


def crops_of(sources: Sequence[Source], network: Network, normalization: Normalization) -> Crops:
    """Return crops of one size from all images. Raises OptionError, ChannelError."""
    if not sources:
        raise OptionError("int8 needs images to calibrate on, such as those to come: --calibrate IMAGE, once each")
    geometry = network.trace().geometry
    if geometry is None:
        raise ModelError(f"{network.name} cannot be tiled exactly")
    size = geometry.y.accepted_size(CROP_PX), geometry.x.accepted_size(CROP_PX)
    for source in sources:
        _check(source, network, size)
    if len(sources) == 1:
        first, second = _parts(sources[0], size)
        parts = [(sources[0], first)], [(sources[0], second)]
        apart = first != second
    else:
        whole = [(source, Box(Span(0, source.height), Span(0, source.width))) for source in sources]
        held = [index % HELD_OUT_EVERY == 1 for index in range(len(whole))]
        parts = (
            [one for one, out in zip(whole, held, strict=True) if not out],
            [one for one, out in zip(whole, held, strict=True) if out],
        )
        apart = True
    calibration, held_out = (tuple(_read(part, size, normalization)) for part in parts)
    return Crops(calibration=calibration, held_out=held_out, apart=apart)


def as_fed(pixels: NDArray[np.float32], network: Network) -> NDArray[np.float32]:
    """Return ``pixels`` (H, W, C) in the order of the network's axes, with a batch of one."""
    order = {"y": 0, "x": 1, "c": 2}
    arranged = pixels.transpose([order[label] for label in network.labels if label != "n"])
    return np.ascontiguousarray(np.expand_dims(arranged, network.labels.index("n")))


def _check(source: Source, network: Network, size: tuple[int, int]) -> None:
    leave_out_alpha(source, network.channels)
    if source.channels != network.channels:
        raise ChannelError(f"a calibration image has {source.channels} channel(s), the model takes {network.channels}")
    if source.height < size[0] or source.width < size[1]:
        raise OptionError(
            f"a calibration image has {source.height} x {source.width} pixels; {size[0]} x {size[1]} are needed"
        )


def _parts(source: Source, size: tuple[int, int]) -> tuple[Box, Box]:
    """Return two parts of one image, side by side; twice the whole image where it has no room for a crop in each."""
    height, width = source.height, source.width
    rows, columns = Span(0, height), Span(0, width)
    if width >= max(height, 2 * size[1]) or (width >= 2 * size[1] and height < 2 * size[0]):
        return Box(rows, Span(0, width // 2)), Box(rows, Span(width // 2, width))
    if height >= 2 * size[0]:
        return Box(Span(0, height // 2), columns), Box(Span(height // 2, height), columns)
    return Box(rows, columns), Box(rows, columns)


def _read(parts: Sequence[tuple[Source, Box]], size: tuple[int, int], normalization: Normalization) -> Iterator[Crop]:
    """Read up to ``MOST_CROPS`` crops, from all images in turn."""
    each = max(1, MOST_CROPS // len(parts))
    normalizers = [_normalizers(source, normalization) for source, _ in parts[:MOST_CROPS]]
    for index in range(each):
        for (source, part), (offset, scale) in zip(parts[:MOST_CROPS], normalizers, strict=True):
            box = _box(part, size, (index + 0.5) / each)
            source.prepare(ReadPlan(rows=[box.y], columns=[box.x]), cache_bytes=0)
            samples = np.empty((*box.shape, source.channels), source.dtype)
            source.read(box, samples)
            yield Crop(samples=samples, pixels=((samples - offset) / scale).astype(np.float32))


def _normalizers(source: Source, normalization: Normalization) -> tuple[Array, Array]:
    """Return offset and scale of each channel for ``(sample - offset) / scale``, as float64."""
    if normalization.statistics is not None:
        found = measure(source, normalization.statistics)
        return found.offset, found.scale
    divisor, mean, std = (np.array(values) for values in (normalization.scale, normalization.mean, normalization.std))
    return divisor * mean, divisor * std


def _box(part: Box, size: tuple[int, int], share: float) -> Box:
    """Return the box at this share of the height of ``part``; its column varies."""
    y = part.y.start + int((part.y.length - size[0]) * share)
    x = part.x.start + int((part.x.length - size[1]) * (share * 2.618 % 1))
    return Box(Span(y, y + size[0]), Span(x, x + size[1]))
