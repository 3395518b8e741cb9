"""What a model's file declares in addition to its network: its input, its output, and how its vendor tiles it."""

from __future__ import annotations

from dataclasses import dataclass

from exactile.contract import Activation, OutputKind
from exactile.errors import OptionError
from exactile_converters.networks.normalization import Normalization

LARGEST_SAMPLES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""Divisors that bring samples of a type to 0 to 1; floating-point samples are assumed to lie there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """``(sample / scale - mean) / std``; a ``scale`` of None is the largest value of the samples' type.

    ``samples`` are the sample types for which it is meant, all if empty. ``unknown`` says what the file leaves open,
    and which option sets it.
    """

    scale: tuple[float, ...] | None = (1.0,)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    samples: tuple[str, ...] = ()
    unknown: str = ""

    @property
    def sentence(self) -> str:
        """Describe the scaling for any sample type."""
        if self.unknown:
            return self.unknown
        if self.scale is None:
            return "divided by the largest value of their type"
        only = f", of {' or '.join(self.samples)} alone" if self.samples else ""
        return in_words(Normalization(scale=self.scale, mean=self.mean, std=self.std)) + only

    def normalization(self, dtype: str) -> Normalization:
        """Return the normalisation for samples of ``dtype``. Raises OptionError where it is unknown."""
        if self.unknown:
            raise OptionError(self.unknown)
        if self.samples and dtype not in self.samples:
            raise OptionError(
                f"its normalisation is one of {', '.join(self.samples)} samples, and the image's are {dtype}; "
                "say what these become: --scale, --mean, --std"
            )
        scale = (LARGEST_SAMPLES.get(dtype, 1.0),) if self.scale is None else self.scale
        return Normalization(scale=scale, mean=self.mean, std=self.std)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What a file of kind ``source`` declares about its network; None, or empty, for what it does not declare.

    ``image_dtype`` is the sample type for which a bundle is made. ``colors`` are #rrggbb. ``border_px`` is what its
    vendor drops on each side of a tile, ``tile_px`` the padded tile, both (height, width) in pixels. ``pixel_size_um``
    is the pixel, in micrometres, for which the network was made. ``channel_order`` are the image's channels in the
    order in which the network takes them. ``output_factor`` multiplies the output. ``notes`` are sentences for users
    about differences.
    """

    source: str
    scaling: Scaling | None = None
    image_dtype: str | None = None
    channels: int | None = None
    channel_order: tuple[int, ...] = ()
    output: OutputKind | None = None
    output_factor: float = 1.0
    activation: Activation | None = None
    threshold: float | None = None
    classes: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()
    border_px: tuple[int, int] | None = None
    tile_px: tuple[int, int] | None = None
    pixel_size_um: float | None = None
    notes: tuple[str, ...] = ()


def in_words(normalization: Normalization) -> str:
    """Return a formula, without the steps that change nothing."""
    if normalization.statistics is not None:
        return f"what --normalize {normalization.statistics.kind} makes of them"
    text = "sample"
    for (op, values, neutral), sign in zip(normalization.steps, ("/", "-", "/"), strict=True):
        if all(value == neutral for value in values):
            continue
        numbers = ", ".join(f"{value:g}" for value in values)
        left = f"({text})" if op == "Div" and text != "sample" else text
        text = f"{left} {sign} {numbers if len(values) == 1 else f'[{numbers}]'}"
    return "what they are as stored" if text == "sample" else text
