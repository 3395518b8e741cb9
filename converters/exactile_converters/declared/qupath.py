"""Read QuPath's pixel classifiers with an ONNX network: JSON that names the ONNX file, sample operators, classes.

By QuPath's source (``OpenCVPixelClassifier``, ``ImageOps``, ``OpenCVDnn``). Pixelwise linear operators can be read;
everything else that a classifier may do is refused by its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from exactile.contract import Activation, OutputKind
from exactile.errors import ModelError
from exactile.file_kinds import is_qupath_classifier
from exactile_converters.declared.qupath_classes import classes_and_colors
from exactile_converters.declared.qupath_steps import Steps
from exactile_converters.networks.declaration import Declaration

LARGEST_BYTES = 16 << 20
NETWORK = ("op.ml.opencv-dnn", "op.opencv-dnn")
SIGMOID = ("op.normalize.sigmoid", "op.sigmoid")
OUTPUTS: Mapping[str, OutputKind] = {
    "CLASSIFICATION": "labels", "PROBABILITY": "labels", "MULTICLASS_PROBABILITY": "multilabel",
}  # fmt: skip
LARGEST_PIXEL_UM = 1e9
COLORS = {"Red": 0, "Green": 1, "Blue": 2}


def read_qupath(path: Path) -> tuple[Path, Declaration, str | None] | None:
    """Return the ONNX file that the classifier at ``path`` names, its declaration, and the chosen output.

    None where ``path`` is not a classifier of QuPath. Raises ModelError where it is one that cannot be used.
    """
    if not path.is_file() or not is_qupath_classifier(path):
        return None
    described = _described(path)
    operator, steps, activation = _operators(described, path)
    metadata = described.get("metadata") or {}
    channels = metadata.get("inputNumChannels")
    channels = channels if isinstance(channels, int) and channels > 0 else None
    order, notes = _channels(described.get("op") or {})
    classes, colors = classes_and_colors(metadata, path)
    model, preprocessing = _network(operator, path)
    steps.of_opencv(preprocessing, channels)
    declaration = Declaration(
        source="QuPath pixel classifier",
        scaling=steps.scaling,
        channels=channels,
        channel_order=order if sorted(order) == list(range(channels or 0)) else (),
        output=OUTPUTS.get(str(metadata.get("outputType")), "raw"),
        activation=activation,
        classes=classes,
        colors=colors,
        border_px=_border(operator, metadata),
        tile_px=_tile(operator),
        pixel_size_um=_pixel_size_um(metadata),
        notes=notes,
    )
    return model, declaration, _output(operator, path)


def classifier_in(folder: Path) -> Path | None:
    """Return the only pixel classifier in ``folder``; None where there is none, or more than one."""
    found = [path for path in sorted(folder.glob("*.json")) if is_qupath_classifier(path)]
    return found[0] if len(found) == 1 else None


def linked_model(path: Path) -> Path | None:
    """Return the ONNX file that the classifier at ``path`` names; None where it is none, or cannot be used."""
    try:
        found = read_qupath(path)
    except ModelError:
        return None
    return found[0] if found is not None else None


def _described(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST_BYTES:
        raise ModelError(f"{path} has {path.stat().st_size} bytes; a classifier that names a network is smaller")
    try:
        described = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    kind = described.get("pixel_classifier_type") if isinstance(described, dict) else None
    if kind != "OpenCVPixelClassifier":
        raise ModelError(f"{path} is a pixel classifier of QuPath of type {kind!r}, which has no network")
    found: dict[str, Any] = described
    return found


def _operators(described: Mapping[str, Any], path: Path) -> tuple[Mapping[str, Any], Steps, Activation | None]:
    """Return the network's operator, the steps on samples before it, and the activation of its output."""
    network: Mapping[str, Any] | None = None
    steps = Steps(path)
    activation: Activation | None = None
    for operator in _flat(described.get("op")):
        kind = operator.get("type")
        if kind in NETWORK and network is None:
            network = operator
        elif kind in SIGMOID and network is not None:
            activation = "sigmoid"
        elif network is None:
            steps.add(operator)
        elif kind not in Steps.NOTHING:
            raise ModelError(f"{path}: QuPath does {kind!r} after the network, which is not known here")
    if network is None:
        raise ModelError(f"{path} holds no network: QuPath classifies pixels with it by its own features")
    return network, steps, activation


def _flat(operator: Any) -> Iterator[Mapping[str, Any]]:
    """Yield operators one after the other."""
    if not isinstance(operator, Mapping):
        return
    kind = str(operator.get("type"))
    if kind.startswith("data.op."):
        yield from _flat(operator.get("op"))
    elif kind == "op.core.sequential":
        for one in operator.get("ops") or ():
            yield from _flat(one)
    else:
        yield operator


def _network(operator: Mapping[str, Any], path: Path) -> tuple[Path, Mapping[str, Any]]:
    """Return the ONNX file, and what OpenCV does to samples before it."""
    model = operator.get("model")
    model = model if isinstance(model, Mapping) else {}
    kind = model.get("dnn_model")
    addresses = model.get("uris") if kind == "DjlDnnModel" else [model.get("pathModel")]
    address = addresses[0] if isinstance(addresses, list) and addresses else None
    if not isinstance(address, str):
        raise ModelError(f"{path}: it names no file of its network ({kind})")
    named = Path(unquote(urlsplit(address).path))
    if named.suffix.lower() != ".onnx":
        raise ModelError(
            f"{path}: its network is {named.name}, which is not ONNX; export it to ONNX, and name that file"
        )
    for found in (path.parent / named.name, named):
        if found.is_file():
            return found, model if kind == "OpenCVDnn" else {}
    raise ModelError(f"{path}: its network {named} is not there; put {named.name} beside {path.name}")


def _output(operator: Mapping[str, Any], path: Path) -> str | None:
    names = operator.get("outputNames") or []
    if len(names) > 1:
        raise ModelError(f"{path}: QuPath joins the outputs {', '.join(map(str, names))}; one output is expected")
    return str(names[0]) if names else None


def _channels(operator: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the channels of the image, by number where known; else a note."""
    chosen = operator.get("colorTransforms") or []
    named = [one.get("channelName", one.get("channel")) if isinstance(one, Mapping) else None for one in chosen]
    numbers = [COLORS.get(one, -1) if isinstance(one, str) else one for one in named]
    if not chosen or sorted(str(one) for one in numbers) == [str(one) for one in range(len(numbers))]:
        return tuple(one for one in numbers if isinstance(one, int)), ()
    listed = ", ".join("one that is computed" if one is None else str(one) for one in named)
    return (), (f"QuPath gives it the channels {listed} of an image: choose them with --channels",)


def _border(operator: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    padding = operator.get("padding")
    given = [padding.get(key) for key in ("y1", "y2", "x1", "x2")] if isinstance(padding, Mapping) else []
    sides = [side for side in given if isinstance(side, int) and side >= 0]
    if len(sides) == 4:
        return max(sides[:2]), max(sides[2:])
    around = metadata.get("inputPadding")
    return (around, around) if type(around) is int and around >= 0 else None


def _tile(operator: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = operator.get("inputHeight"), operator.get("inputWidth")
    return (height, width) if type(height) is int and type(width) is int and min(height, width) > 0 else None


def _pixel_size_um(metadata: Mapping[str, Any]) -> float | None:
    """Return the side of square pixels in micrometres."""
    resolution = metadata.get("inputResolution")
    sides = [resolution.get(key) for key in ("pixelWidth", "pixelHeight")] if isinstance(resolution, Mapping) else []
    values = [one.get("value") for one in sides if isinstance(one, Mapping) and one.get("unit") in ("µm", "um", "μm")]
    if len(values) != 2 or values[0] != values[1] or not isinstance(values[0], int | float):
        return None
    return float(values[0]) if 0 < values[0] <= LARGEST_PIXEL_UM else None
