"""What ``contract.json`` may say: types that are decoded strictly, and the JSON Schema made from them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from exactile.bundle.accuracy_parts import AccuracyPart
from exactile.bundle.contract_values import (
    Count,
    FileName,
    MacPerPixel,
    Part,
    PixelSizeMicrons,
    Sha256,
    WeightType,
    Work,
)
from exactile.bundle.network_parts import (
    ClassPart,
    GeometryPart,
    GraphPart,
    ImagePart,
    MemoryPart,
    NormalizationPart,
    ResultPart,
    TilePart,
)
from exactile.bundle.pass_parts import KeepingPart, LevelPart, WholePart
from exactile.bundle.strip_parts import OtherStripsPart, PlacedPart, StripsPart
from exactile.json_schema import schema_of

FORMAT = "exactile.bundle"
VERSION: Literal[4] = 4
"""Raised whenever an older runtime would misread what a newer converter writes."""


class WeightPart(Part, frozen=True, kw_only=True):
    """An array in ``weights.bin``, little-endian, C order, from byte ``offset`` on."""

    dtype: WeightType
    shape: tuple[Count, ...]
    offset: Count


class FilePart(Part, frozen=True, kw_only=True):
    """Size and hash that a file must have."""

    bytes: Count
    sha256: Sha256


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
