"""What ``contract.json`` may say: types that are decoded strictly, and the JSON Schema made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from exactile.json_schema import schema_of

FORMAT = "exactile.bundle"
VERSION: Literal[4] = 4
"""Raised whenever an older runtime would misread what a newer converter writes."""

CONTRACT_NAME = "contract.json"
WEIGHTS_NAME = "weights.bin"

Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Positive = Annotated[int, Meta(ge=1, le=1 << 31)]
Work = Annotated[float, Meta(ge=0, description="Predicted time of a pass, by that of one pass of the whole network")]
PixelSizeMicrons = Annotated[
    float, Meta(gt=0, le=1e9, description="Side of the pixels, in micrometres, that the model was made for")
]
MacPerPixel = Annotated[
    float,
    Meta(ge=0, le=1e15, description="What one pass computes, in multiply-accumulates in float32; 0: not known"),
]
Stride = Annotated[int, Meta(ge=1, le=1 << 20)]
Margin = Annotated[int, Meta(ge=-(1 << 31), le=1 << 31)]
Channels = Annotated[int, Meta(ge=1, le=1 << 16)]
ResultChannels = Annotated[int, Meta(ge=0, le=1 << 16)]
Rational = Annotated[str, Meta(pattern=r"^-?[0-9]{1,18}(/[1-9][0-9]{0,17})?$", description="A fraction: 3, -1/2")]
FileName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="A file in the bundle's folder itself"),
]
CalibrationName = Literal["percentile", "entropy", "minmax"]
FloatLayers = Literal["none", "first", "last", "first and last"]
Architecture = Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,32}$", description="Of a CPU: x86_64, arm64; or empty")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Code = Annotated[str, Meta(pattern=r"^([^:]{1,16}:[^:]{1,16}:.{1,64})?$")]
Color = Annotated[str, Meta(pattern=r"^#[0-9a-f]{6}$")]
ImageType = Literal["uint8", "uint16", "float32"]
ResultType = Literal["uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16", "float32"]
WeightType = Literal[
    "float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"
]
MemoryStep = Annotated[
    tuple[float, float, float, float],
    Meta(description="Bytes for a tile of h x w pixels: a*h*w + b*h + c*w + d"),
]
ElementCount = Annotated[
    tuple[float, float, float, float],
    Meta(description="Elements of a tensor for a tile of h x w pixels: a*h*w + b*h + c*w + d"),
]


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the contract; unknown fields are an error."""


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


class CarryPart(Part, frozen=True, kw_only=True):
    """Rows handed from strip to strip; see ``exactile.contract.Carry``. ``shape`` has null where columns are."""

    name: str
    of: str
    dtype: WeightType
    shape: tuple[Positive | None, ...]
    width_scale: Rational
    width_constant: Rational


class StripGraphPart(Part, frozen=True, kw_only=True):
    """One of the three strip graphs."""

    file: FileName
    memory: MemoryPart


class StripGraphsPart(Part, frozen=True, kw_only=True):
    """The strip graphs by role."""

    first: StripGraphPart
    body: StripGraphPart
    last: StripGraphPart


class StripsPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """The strip plan of the network; see ``exactile.contract.StripModel``.

    ``own_rows`` and ``own_columns`` were added in version 3, ``processor`` in version 4.
    """

    startup_rows: Positive
    least_last_rows: Positive
    lag: int
    carries: tuple[CarryPart, ...]
    graphs: StripGraphsPart
    copied_passes: float
    recomputed_rows: float
    own_rows: tuple[tuple[Count, Positive], ...] = ()
    own_columns: tuple[tuple[Count, tuple[Rational, ...]], ...] = ()
    processor: Architecture = ""


class OtherStripsPart(Part, frozen=True, kw_only=True):
    """Strips for images whose (height, width) have other remainders than the geometry's first."""

    remainders: tuple[Count, Count]
    strips: StripsPart


class PlacedPart(Part, frozen=True, kw_only=True):
    """The graphs for sizes at which operators depend on the position; see ``exactile.contract.PlacedModel``."""

    graph: GraphPart
    memory: MemoryPart
    strips: StripsPart | None
    no_strips_reason: str
    other_strips: tuple[OtherStripsPart, ...] = ()


class StatisticPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A statistic of a feature map over the whole image; see ``exactile.passes.statistic.Statistic``."""

    kind: Literal["mean", "moments", "sum", "maximum", "minimum"]
    channels: Channels
    groups: Channels
    inputs: Annotated[tuple[str, ...], Meta(min_length=1, max_length=2)]
    shapes: Annotated[tuple[tuple[Positive, ...], ...], Meta(min_length=1, max_length=2)]
    grid: tuple[Positive, Positive] = (1, 1)


class MapLinePart(Part, frozen=True, kw_only=True):
    """How a map grows along an axis; see ``exactile.passes.device_graph.MapLine``."""

    scale: Rational
    stride: Stride
    constants: Annotated[tuple[tuple[Count, Rational], ...], Meta(min_length=1)]


class DevicePassPart(Part, frozen=True, kw_only=True):
    """The graph of a pass for GPUs; ``rows`` and ``columns`` are those of the map of each statistic.

    See ``exactile.passes.device_graph.DevicePass``.
    """

    graph: GraphPart
    rows: tuple[MapLinePart, ...]
    columns: tuple[MapLinePart, ...]


class LevelPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A pass over the image that finds statistics of it; see ``exactile.contract.Level``.

    ``placed_graph`` is the one for sizes at which operators depend on the position, ``on_device`` the one for GPUs.
    """

    geometry: GeometryPart
    memory: MemoryPart
    graph: GraphPart
    statistics: Annotated[tuple[StatisticPart, ...], Meta(min_length=1)]
    work: Work = 1.0
    placed_graph: GraphPart | None = None
    placed_memory: MemoryPart | None = None
    on_device: DevicePassPart | None = None


class KeptMapPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A map that is kept between passes; see ``exactile.passes.kept_map.KeptMap``. ``shape`` has null where rows and
    columns are, ``scale`` is that of (rows, columns).
    """

    output: str
    input: str
    dtype: WeightType
    shape: tuple[Positive | None, ...]
    scale: tuple[Rational, Rational]
    rows_first: bool = True


class KeptPassPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A pass that begins at kept maps; ``reads`` and ``writes`` are positions in the list of maps."""

    graph: GraphPart
    memory: MemoryPart
    reads: tuple[Count, ...]
    writes: tuple[Count, ...]
    reads_image: bool
    work: Work = 1.0
    placed_graph: GraphPart | None = None
    placed_memory: MemoryPart | None = None


class KeptAlongPart(Part, frozen=True, kw_only=True):
    """What holds for images of a ``remainder`` modulo the network's stride: for each pass the index of its geometry in
    the list of axes, and for each map the rows or columns beyond its share of the image.
    """

    remainder: Count
    geometry: tuple[Count, ...]
    constants: tuple[Rational, ...]


class KeepingPart(Part, frozen=True, kw_only=True):
    """Passes that begin at kept maps, that of the result the last; see ``exactile.contract.KeptPasses``.

    The graphs are those for images of the first remainders.
    """

    maps: Annotated[tuple[KeptMapPart, ...], Meta(min_length=1)]
    passes: Annotated[tuple[KeptPassPart, ...], Meta(min_length=2)]
    axes: tuple[AxisPart, ...]
    y: Annotated[tuple[KeptAlongPart, ...], Meta(min_length=1)]
    x: Annotated[tuple[KeptAlongPart, ...], Meta(min_length=1)]


class WholePart(Part, frozen=True, kw_only=True):
    """The graph that takes one pass over the whole image; see ``exactile.contract.WholeGraph``."""

    graph: GraphPart
    memory: MemoryPart
    obstacles: Annotated[tuple[str, ...], Meta(min_length=1)]


class WeightPart(Part, frozen=True, kw_only=True):
    """An array in ``weights.bin``, little-endian, C order, from byte ``offset`` on."""

    dtype: WeightType
    shape: tuple[Count, ...]
    offset: Count


class FilePart(Part, frozen=True, kw_only=True):
    """Size and hash that a file must have."""

    bytes: Count
    sha256: Sha256


class TrialPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """One form of int8 that was compared: how ranges were found, and which layers stayed in FP32.

    ``share`` is the fraction of labels that differ from FP32; if results are not labels, ``error`` is the root mean
    square of the differences relative to that of the values. ``time`` is that of one pass relative to FP32.
    """

    calibration: CalibrationName
    percentile: float | None = None
    float_layers: FloatLayers
    share: float | None = None
    error: float | None = None
    iou: tuple[float | None, ...] = ()
    time: float | None = None


class AccuracyPart(Part, frozen=True, kw_only=True, omit_defaults=True):
    """Labels of fewer bits compared with those of FP32; ``iou`` by class, null if it has none.

    With ``held_out``, compared on images, or parts of an image, that were not used for calibration. ``tried`` are all
    forms of int8 that were compared, including this one, which was taken. These members were added in version 4.
    """

    calibration: CalibrationName | None
    pixels: Count
    different_labels: Count
    iou: tuple[float | None, ...]
    percentile: float | None = None
    float_layers: FloatLayers = "none"
    error: float | None = None
    time: float | None = None
    held_out: bool = False
    tried: tuple[TrialPart, ...] = ()


class SamplePart(Part, frozen=True, kw_only=True):
    """A small image and the model's result for it at conversion: ``.npy`` files."""

    image: FileName
    result: FileName


class VerificationPart(Part, frozen=True, kw_only=True):
    """How it is known that tiles and strips equal one pass; see ``exactile.contract.Verification``."""

    by: Literal["running", "rules", "probe"]
    note: str


class ContractFile(Part, frozen=True, kw_only=True):
    """All of ``contract.json``. ``files`` lists every other file of the bundle.

    ``verification`` is null in bundles of converters that did not run the model. ``other_strips`` and ``placed`` were
    added in version 3; ``levels``, ``keeping``, ``whole``, ``statistics_key`` (what statistics depend on), ``work`` and
    ``mac_per_pixel`` in version 4. ``pixel_size_um`` is what the model's own file declares, null if it does not.
    """

    format: Literal["exactile.bundle"]
    version: Literal[1, 2, 3, 4]
    made_by: str
    model: str
    source: str
    precision: Literal["fp32", "fp16", "int8"]
    accuracy: AccuracyPart | None
    image: ImagePart
    normalization: NormalizationPart
    result: ResultPart
    classes: tuple[ClassPart, ...]
    geometry: GeometryPart
    memory: MemoryPart
    graph: GraphPart
    tile: TilePart
    strips: StripsPart | None
    no_strips_reason: str
    notes: tuple[str, ...]
    weights: dict[str, WeightPart]
    sample: SamplePart
    files: dict[FileName, FilePart]
    verification: VerificationPart | None = None
    other_strips: tuple[OtherStripsPart, ...] = ()
    placed: PlacedPart | None = None
    levels: tuple[LevelPart, ...] = ()
    statistics_key: Sha256 | None = None
    keeping: KeepingPart | None = None
    whole: WholePart | None = None
    work: Work = 1.0
    mac_per_pixel: MacPerPixel = 0.0
    pixel_size_um: PixelSizeMicrons | None = None


class Header(Struct, frozen=True, kw_only=True):
    """Members that every version of the format has."""

    format: str
    version: int


def encode_contract(contract: ContractFile) -> bytes:
    """Return ``contract.json``, indented, ending in a line feed."""
    return msgspec.json.format(msgspec.json.encode(contract), indent=2) + b"\n"


def contract_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``contract.json`` (draft 2020-12)."""
    return schema_of(ContractFile)
