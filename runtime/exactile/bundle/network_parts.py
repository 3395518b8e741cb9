"""The network in ``contract.json``: its geometry, image, result, memory and graphs."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from exactile.bundle.contract_values import (
    Channels,
    Code,
    Color,
    Count,
    ElementCount,
    FileName,
    ImageType,
    Margin,
    MemoryStep,
    Part,
    Positive,
    Rational,
    ResultChannels,
    ResultType,
    Stride,
)


class OwnSizePart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What holds for images of another remainder, which the network takes as they are; see ``AxisGeometry.others``."""

    remainder: Count
    before: Margin
    after: Margin
    extra_before: Count
    extra_after: Count
    size_constant: Rational
    least: Positive = 1
    one_pass: str = ""
    placed: bool = False


class AxisPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """The geometry along one axis, in input pixels; see ``exactile.geometry.AxisGeometry``.

    ``others`` was added in version 3; it is null if accepted sizes were not searched for.
    """

    stride: Stride
    before: Margin
    after: Margin
    extra_before: Count
    extra_after: Count
    scale: Rational
    origin: Rational
    size_constant: Rational
    remainder: Count
    others: tuple[OwnSizePart, ...] | None = None
    placed: bool = False


class GeometryPart(Part, frozen=True, kw_only=True):
    """Both axes."""

    y: AxisPart
    x: AxisPart


class StatisticsPart(Part, frozen=True, kw_only=True):
    """Statistics of the whole image that enter the graphs by two further inputs; see
    ``exactile.contract.ImageStatistics``.
    """

    kind: Literal["zscore", "percentile"]
    low: float
    high: float
    epsilon: float
    per_channel: bool
    offset_name: str
    scale_name: str


class ImagePart(Part, frozen=True, kw_only=True):
    """The graphs' image input: (H, W, C), samples as stored."""

    name: str
    dtype: ImageType
    channels: Channels
    statistics: StatisticsPart | None


class ResultPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """The graphs' output: (H, W) labels, if ``channels`` is 0, or (C, H, W); see ``exactile.contract.ResultOutput``.

    The fields with defaults were added in version 2.
    """

    name: str
    kind: Literal["labels", "multilabel", "probabilities", "raw"]
    dtype: ResultType
    channels: ResultChannels
    classes: ResultChannels
    rule: str = ""
    doubt: str = ""
    threshold: float | None = None
    activation: Literal["", "none", "sigmoid", "softmax", "exp"] = ""
    stored: ResultType | Literal[""] = ""
    nan_label: Count | None = None
    may_be_nan: bool = False
    unproven: bool = False


class MemoryPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """The memory of one inference: the weights, and the largest of the steps; elements of the largest tensors.

    Bundles that were written before these were counted have none.
    """

    weights_bytes: Count
    steps: Annotated[tuple[MemoryStep, ...], Meta(min_length=1)]
    elements: tuple[ElementCount, ...] | None = None


class NormalizationPart(Part, frozen=True, kw_only=True):
    """The normalisation before the network: ``(sample / scale - mean) / std``. For people."""

    scale: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ClassPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A class; labels are indices in the list. ``code`` is a coded concept, SCHEME:VALUE:MEANING."""

    name: str
    color: Color
    code: Code = ""


class GraphPart(Part, frozen=True, kw_only=True):
    """A graph for any accepted tile."""

    file: FileName


class TilePart(Part, frozen=True, kw_only=True):
    """The graph with the padded tile's shape fixed in it: (height, width)."""

    file: FileName
    shape: tuple[Positive, Positive]
