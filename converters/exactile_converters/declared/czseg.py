"""Read the description in a ``.czseg`` or ``.czmodel`` file: XML, formats 3.0 to 3.2."""

from __future__ import annotations

import xml.etree.ElementTree as ET  # documents that declare a type, and so entities, are refused
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exactile.errors import ModelError
from exactile_converters.declared.color_order import blue_first
from exactile_converters.networks.declaration import Declaration, Scaling

SAMPLES = {
    "Gray8": "uint8", "Gray16": "uint16", "Gray32Float": "float32",
    "Bgr24": "uint8", "Bgr48": "uint16", "Bgr96Float": "float32", "Bgra32": "uint8",
}  # fmt: skip
CHANNELS = {"Gray": 1, "Bgra": 4, "Bgr": 3}
NETWORK = "DeepNeuralNetwork"
UNSAID = (
    "its file does not say whether samples are scaled (ScaleInputsByBitdepth is missing, as in formats before 3.2): "
    "give --scale 1 where the network takes them as stored, --scale 255 (65535 for uint16) where it takes 0 to 1"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """One item of the image: its channels, and the possible sample types."""

    channels: int
    samples: tuple[str, ...]


class _NoDoctype(ET.TreeBuilder):
    """Refuses document types, which declare entities: descriptions of models have none."""

    def doctype(self, name: str, _public: str | None, _system: str | None) -> None:
        raise ModelError(f"a document type ({name}) is declared, which descriptions of models do not have")


def czseg_declaration(data: bytes, path: Path) -> Declaration:
    """Return the declaration. Raises ModelError for damaged files, and for models that are not networks."""
    root = _parsed(data, path)
    extractor = _text(root, "FeatureExtractor")
    if extractor not in (None, NETWORK):
        raise ModelError(f"{path} is not a network: it classifies pixels by features that ZEN computes, {extractor}")
    pixels = _pixels(root, path)
    order, notes = _order(pixels)
    classes, colors, doubt = _classes(root)
    height, width = _whole(root, "TotalTileHeight", path), _whole(root, "TotalTileWidth", path)
    border = _whole(root, "BorderSize", path)
    samples = pixels[0].samples if pixels else ()
    return Declaration(
        source="Zeiss CZSEG",
        scaling=_scaling(root, path),
        image_dtype=samples[0] if samples else None,
        channels=sum(one.channels for one in pixels) or None,
        channel_order=order,
        output="labels",
        classes=classes,
        colors=colors,
        border_px=None if border is None else (border, border),
        tile_px=None if height is None or width is None else (height, width),
        notes=(*notes, *doubt, *_left_out(root)),
    )


def _parsed(data: bytes, path: Path) -> ET.Element:
    try:
        parser = ET.XMLParser(target=_NoDoctype())  # noqa: S314
        parser.feed(data)
        root: ET.Element = parser.close()
    except ModelError as error:
        raise ModelError(f"{path}: its description is refused: {error}") from error
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ModelError(f"{path}: its description is not XML: {error}") from error
    if root.tag != "Model":
        raise ModelError(f"{path}: its description begins with {root.tag!r}, and 'Model' is expected")
    return root


def _text(root: ET.Element, tag: str) -> str | None:
    found = root.findtext(tag)
    return found.strip() if found is not None and found.strip() else None


def _whole(root: ET.Element, tag: str, path: Path) -> int | None:
    text = _text(root, tag)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise ModelError(f"{path}: {tag} is {text!r}; a whole number of pixels is expected")
    return int(text[:9])


def _pixels(root: ET.Element, path: Path) -> tuple[Pixels, ...]:
    """Read the items: several types in one item are alternatives; several items are consecutive channels."""
    found = []
    for item in root.iterfind("Channels/Item"):
        names = item.get("PixelType", "").split()
        counts = {next((n for start, n in CHANNELS.items() if name.startswith(start)), 0) for name in names}
        if not names or len(counts) != 1 or not counts <= {1, 3, 4} or not set(names) <= set(SAMPLES):
            raise ModelError(
                f"{path}: it takes pixels of {' '.join(names) or 'no type'}; known are {', '.join(SAMPLES)}, and "
                "alternatives must have as many channels"
            )
        found.append(Pixels(channels=counts.pop(), samples=tuple(SAMPLES[name] for name in names)))
    return tuple(found)


def _order(pixels: Sequence[Pixels]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    order: list[int] = []
    notes: tuple[str, ...] = ()
    for one in pixels:
        first = len(order)
        own, note = blue_first(one.channels, "so says its file, and") if one.channels > 1 else ((0,), ())
        order += [first + channel for channel in own]
        notes = notes or note
    return tuple(order), notes


def _classes(root: ET.Element) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return names and colours by the network's channels, and a doubt about them."""
    items = root.findall("TrainingClasses/Item") or root.findall("TrainingClasses")
    named = [item for item in items if item.get("Name")]
    if not named:
        return (), (), ()
    values = [item.get("LabelValue", str(place)) for place, item in enumerate(named, 1)]
    if values != [str(place) for place in range(1, len(named) + 1)]:
        return (), (), (f"its file numbers its classes {', '.join(values)}: their names are left out",)
    colors = [_color(item) for item in named]
    return tuple(item.get("Name", "") for item in named), tuple(filter(None, colors)) if all(colors) else (), ()


def _color(item: ET.Element) -> str:
    parts = [item.get(f"col{letter}", "") for letter in "RGB"]
    if not all(part.isascii() and part.isdigit() and len(part) <= 3 and int(part) <= 255 for part in parts):
        return ""
    return "#" + "".join(f"{int(part):02x}" for part in parts)


def _scaling(root: ET.Element, path: Path) -> Scaling:
    said = _text(root, "ScaleInputsByBitdepth")
    if said is None:
        return Scaling(unknown=f"{path.name}: {UNSAID}")
    if said.lower() not in ("true", "false"):
        raise ModelError(f"{path}: ScaleInputsByBitdepth is {said!r}; true or false is expected")
    return Scaling(scale=None) if said.lower() == "true" else Scaling()


def _left_out(root: ET.Element) -> tuple[str, ...]:
    """Return what ZEN does in addition to running the network."""
    notes = []
    after = _text(root, "Postprocessing")
    if after is not None and after != "None":
        notes.append(f"its file asks for {after} after the network, which is not done: it needs the whole result")
    if _text(root, "ColorHandling") == "ConvertToMonochrome":
        notes.append("ZEN makes colour images grey before this network, which is not done: give a grey image")
    return tuple(notes)
