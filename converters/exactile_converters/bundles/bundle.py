"""Write a bundle: a folder that the runtime opens without onnx and without torch."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

import exactile
from exactile.bundle.accuracy_parts import AccuracyPart
from exactile.bundle.contract_file import (
    VERSION,
    ContractFile,
    FilePart,
    SamplePart,
    VerificationPart,
    WeightPart,
    encode_contract,
)
from exactile.bundle.kept_passes import keeping_part
from exactile.bundle.levels import level_part, whole_part
from exactile.bundle.network_parts import ClassPart, GraphPart, NormalizationPart, TilePart
from exactile.bundle.pass_parts import KeepingPart, LevelPart, WholePart
from exactile.bundle.strip_parts import OtherStripsPart, PlacedPart, StripsPart
from exactile.bundle.translation import (
    ROLES,
    claims_of,
    geometry_part,
    image_part,
    layout_claims,
    memory_part,
    result_part,
    strips_part,
)
from exactile.contract import (
    Contract,
    DeployedModel,
    KeptPasses,
    Level,
    PlacedModel,
    StripModel,
    StripRole,
    WholeGraph,
)
from exactile.contract.file_names import CONTRACT_NAME, WEIGHTS_NAME
from exactile.errors import NotTileableError, OutputExistsError, SinkError
from exactile_converters.cuda_kernels.doubts import mark_doubt
from exactile_converters.graphs.io import Normalization
from exactile_converters.reduced_precision.precision import Precision
from exactile_converters.strips.outside import SHARED_FROM_BYTES

ALIGNMENT_BYTES = 64
"""Arrays in ``weights.bin`` begin at multiples of this alignment, which engines prefer."""


@dataclass(slots=True, kw_only=True)
class BundleContent:
    """What goes into a bundle in addition to the model. ``tile`` is the padded tile's (height, width)."""

    model: DeployedModel
    source: str
    normalization: Normalization
    classes: Sequence[ClassPart]
    tile: tuple[int, int]
    sample_image: NDArray[Any]
    sample_result: NDArray[Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    precision: Precision = "fp32"
    accuracy: AccuracyPart | None = None


def write_bundle(content: BundleContent, target: str | Path, *, overwrite: bool = False) -> ContractFile:
    """Write the bundle to the folder ``target``, which appears only when it is complete.

    Raises OutputExistsError when ``target`` exists and ``overwrite`` is False or ``target`` is not a bundle, SinkError,
    and NotTileableError for a model that is deployed for images of one size.
    """
    if content.model.contract.obstacles:
        raise NotTileableError(
            f"{content.model.contract.model_name} is deployed for images of one size, because of "
            f"{content.model.contract.obstacles[0]}; a bundle is for images of any size"
        )
    target = Path(os.path.realpath(target))
    _check_target(target, overwrite=overwrite)
    files, contract = _files(content)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        for name, data in files.items():
            with (part / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _publish(part, target, overwrite=overwrite)
    except OSError as error:
        raise SinkError(f"cannot write the bundle {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return contract


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise SinkError(f"cannot write {target}: the folder {target.parent} does not exist")
    if not target.exists():
        return
    if not overwrite:
        raise OutputExistsError(f"{target} exists; use --overwrite to replace it")
    if not (target.is_dir() and ((target / CONTRACT_NAME).is_file() or not any(target.iterdir()))):
        raise OutputExistsError(f"{target} is not a bundle, so it is not replaced; choose another name")


def _publish(part: Path, target: Path, *, overwrite: bool) -> None:
    """Move the finished folder into place, by two renames where a bundle is replaced: few systems exchange folders."""
    _check_target(target, overwrite=overwrite)
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    if target.exists():
        target.rename(old)
    try:
        part.rename(target)
    except OSError:
        with suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _files(content: BundleContent) -> tuple[dict[str, bytes], ContractFile]:
    model = content.model
    weights = _Weights()
    height, width = content.tile
    tile_name = f"tile-{height}x{width}.onnx"
    graph = onnx.load_from_string(model.graph)
    graphs = {"graph.onnx": graph, tile_name: _fixed(graph, content.tile)}
    store = _Graphs(graphs)
    strips, others = store.strips_of(model.strips, model.other_strips)
    placed = None if model.placed is None else store.placed_of(model.placed, same=model.graph)
    levels = [store.level_of(number, level) for number, level in enumerate(model.levels, 1)]
    keeping = store.keeping_of(model.keeping) if model.keeping is not None else None
    whole = store.whole_of(model.whole) if model.whole is not None else None
    for name, proto in graphs.items():
        weights.move(proto, store.outside.get(name, {}))
    layout = layout_claims(weights.parts, strips, others, placed, levels, keeping, whole)
    metadata = {**content.metadata, **claims_of(model.contract), **layout}
    files = {}
    for name, proto in graphs.items():
        del proto.metadata_props[:]
        own = store.claims.get(name, {})
        onnx.helper.set_model_props(proto, {**metadata, **own, "exactile.role": name.removesuffix(".onnx")})
        mark_doubt(proto)
        proto.producer_name, proto.producer_version = "exactile", exactile.__version__
        files[name] = proto.SerializeToString()
    files[WEIGHTS_NAME] = bytes(weights.data)
    files["sample-image.npy"], files["sample-result.npy"] = map(_npy, (content.sample_image, content.sample_result))
    normalization = content.normalization
    contract = ContractFile(
        format="exactile.bundle",
        version=VERSION,
        made_by=f"exactile {exactile.__version__}",
        model=model.contract.model_name,
        source=content.source,
        precision=content.precision,
        accuracy=content.accuracy,
        image=image_part(model.contract.image),
        normalization=NormalizationPart(scale=normalization.scale, mean=normalization.mean, std=normalization.std),
        result=result_part(model.contract.result),
        classes=tuple(content.classes),
        geometry=geometry_part(model.contract.geometry),
        memory=memory_part(model.contract.memory),
        graph=GraphPart(file="graph.onnx"),
        tile=TilePart(file=tile_name, shape=content.tile),
        strips=strips,
        no_strips_reason=model.no_strips_reason,
        notes=tuple(content.notes),
        weights=weights.parts,
        sample=SamplePart(image="sample-image.npy", result="sample-result.npy"),
        files={
            name: FilePart(bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()
        },
        verification=VerificationPart(
            by="rules" if model.contract.verification.by == "one pass" else model.contract.verification.by,
            note=model.contract.verification.note,
        ),
        other_strips=others,
        placed=placed,
        levels=tuple(levels),
        statistics_key=model.statistics_key or None,
        keeping=keeping,
        whole=whole,
        work=model.work,
        mac_per_pixel=model.contract.mac_per_pixel,
        pixel_size_um=model.contract.pixel_size_um,
    )
    return {**files, CONTRACT_NAME: encode_contract(contract)}, contract


class _Graphs:
    """Graphs by file name; equal graphs are stored once.

    ``outside`` holds the constants that are stored outside of a graph, by name; ``claims`` the entries of a graph's
    metadata that differ from those of the others.
    """

    def __init__(self, graphs: dict[str, onnx.ModelProto]) -> None:
        self._graphs = graphs
        self._known: dict[bytes, str] = {}
        self.outside: dict[str, Mapping[str, NDArray[Any]]] = {}
        self.claims: dict[str, Mapping[str, str]] = {}

    def strips_of(
        self, strips: StripModel | None, others: Mapping[tuple[int, int], StripModel], prefix: str = ""
    ) -> tuple[StripsPart | None, tuple[OtherStripsPart, ...]]:
        """Add the strip graphs, and those of other remainders."""
        first = None if strips is None else self._strips(strips, f"{prefix}strip", "")
        more = [
            OtherStripsPart(remainders=at, strips=self._strips(other, f"{prefix}strip", f"-{at[0]}-{at[1]}"))
            for at, other in others.items()
        ]
        return first, tuple(more)

    def placed_of(self, placed: PlacedModel, same: bytes) -> PlacedPart:
        """Add the graphs of placed operators. ``same`` is graph.onnx, which may also be the tile graph."""
        strips, others = self.strips_of(placed.strips, placed.other_strips, prefix="placed-")
        name = "graph.onnx" if placed.graph == same else "placed-graph.onnx"
        if name not in self._graphs:
            self._graphs[name] = onnx.load_from_string(placed.graph)
        return PlacedPart(
            graph=GraphPart(file=name),
            memory=memory_part(placed.memory),
            strips=strips,
            no_strips_reason=placed.no_strips_reason,
            other_strips=others,
        )

    def level_of(self, number: int, level: Level) -> LevelPart:
        """Add the graphs of a pass that computes statistics."""
        name = f"statistics-{number}.onnx"
        on_device = None
        if level.on_device is not None:
            on_device = f"device-{name}"
            self._add_pass(on_device, level.on_device.graph, level.model)
        return level_part(level, *self._pass(name, level.model), on_device)

    def keeping_of(self, keeping: KeptPasses) -> KeepingPart:
        """Add the graphs of passes that begin at kept maps."""
        names = [
            self._pass(f"kept-statistics-{number}.onnx", level.model)
            for number, level in enumerate(keeping.model.levels, 1)
        ]
        return keeping_part(keeping, [*names, self._pass("kept-graph.onnx", keeping.model)])

    def whole_of(self, whole: WholeGraph) -> WholePart:
        """Add the graph of one pass over the whole image."""
        self._graphs["whole-graph.onnx"] = onnx.load_from_string(whole.graph)
        return whole_part(whole, "whole-graph.onnx")

    def _pass(self, name: str, model: DeployedModel) -> tuple[str, str | None]:
        """Return the file names of a pass's graph and of its graph with placed operators, if there is one."""
        self._add_pass(name, model.graph, model)
        if model.placed is None or model.placed.graph == model.graph:
            return name, None if model.placed is None else name
        self._add_pass(f"placed-{name}", model.placed.graph, model)
        return name, f"placed-{name}"

    def _add_pass(self, name: str, graph: bytes, model: DeployedModel) -> None:
        self._graphs[name] = onnx.load_from_string(graph)
        self.outside[name] = model.weights
        self.claims[name] = claims_of(model.contract)

    def _strips(self, strips: StripModel, prefix: str, suffix: str) -> StripsPart:
        names: dict[StripRole, str] = {}
        for role in ROLES:
            data = strips.graphs[role].graph
            if data not in self._known:
                name = self._known[data] = f"{prefix}-{role}{suffix}.onnx"
                self._graphs[name] = onnx.load_from_string(data)
                self.outside[name] = strips.weights
            names[role] = self._known[data]
        return strips_part(strips, names)


class _Weights:
    """The shared file of weights: stores each array once, whichever graphs use it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.parts: dict[str, WeightPart] = {}

    def move(self, model: onnx.ModelProto, known: Mapping[str, NDArray[Any]]) -> None:
        """Move large constants of ``model`` into the file; ``known`` holds those that are already stored outside."""
        for tensor in model.graph.initializer:
            outside = tensor.data_location == TensorProto.EXTERNAL
            array = known[tensor.name] if outside else numpy_helper.to_array(tensor)
            if array.nbytes < SHARED_FROM_BYTES or array.dtype.name not in WEIGHT_TYPES:
                continue
            part = self._part(tensor.name, np.ascontiguousarray(array))
            if part is not None:
                _refer(tensor, part, array.nbytes)
            elif outside:
                inside = numpy_helper.from_array(array, tensor.name)
                tensor.CopyFrom(inside)

    def _part(self, name: str, array: NDArray[Any]) -> WeightPart | None:
        """Return where the array is stored; None if its name belongs to a different array."""
        data = array.tobytes()
        part = self.parts.get(name)
        if part is not None:
            same = part.dtype == array.dtype.name and part.shape == array.shape
            return part if same and self.data[part.offset : part.offset + len(data)] == data else None
        self.data.extend(bytes(-len(self.data) % ALIGNMENT_BYTES))
        part = WeightPart(dtype=array.dtype.name, shape=array.shape, offset=len(self.data))  # type: ignore[arg-type]
        self.data.extend(data)
        self.parts[name] = part
        return part


WEIGHT_TYPES = frozenset(
    ("float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")
)


def _refer(tensor: TensorProto, part: WeightPart, size: int) -> None:
    for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data"):
        tensor.ClearField(name)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS_NAME), ("offset", part.offset), ("length", size)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def _fixed(graph: onnx.ModelProto, tile: tuple[int, int]) -> onnx.ModelProto:
    """Return a copy with fixed image height and width, for engines that are built for one shape."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(graph)
    for value in fixed.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in ("height", "width"):
                dim.dim_value = tile[dim.dim_param == "width"]
    return fixed


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def conventional_metadata(
    contract: Contract, classes: Sequence[ClassPart], normalization: Normalization
) -> dict[str, str]:
    """Return the ONNX metadata that other tools read: the keys of QGIS Deepness, as JSON, and of Ultralytics."""
    geometry = contract.geometry
    names = {index: part.name for index, part in enumerate(classes)}
    found: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": names,
        "standardization_mean": list(normalization.mean),
        "standardization_std": list(normalization.std),
    }
    keys = {key: json.dumps(value) for key, value in found.items()}
    return {**keys, "stride": str(max(geometry.y.stride, geometry.x.stride)), "names": str(names)}
