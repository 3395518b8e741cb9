"""Read a BioImage.IO package (a folder, its rdf.yaml, or a zip) with its pre- and post-processing.

Pixel-wise steps go into the graph, statistics of the whole image into a pass before. What the package declares is
checked: its test tensors are run, and its halo is compared with the graph's.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import ImageStatistics
from exactile.errors import ModelError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.graphs.io import IMAGE_TYPES, Normalization
from exactile_converters.graphs.processing import Operator, PixelStep, after_network, before_network
from exactile_converters.networks.agreement import Agreement
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import load_network

LARGEST_PACKAGE_BYTES = 16 << 30
EXAMPLE_SIZE = (256, 256)
DECLARATION = "rdf.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What a package declares, in this project's terms."""

    network: Network
    normalization: Normalization
    image_dtype: str
    classes: tuple[str, ...]
    agreement: Agreement | None
    notes: tuple[str, ...]


def is_package(path: Path) -> bool:
    """Return whether ``path`` is a folder with ``rdf.yaml`` (or ``bioimageio.yaml``), that file, or a zip."""
    return path.suffix == ".zip" or path.suffix in {".yaml", ".yml"} or any(map(Path.is_file, _declarations(path)))


def from_package(path: Path, *, output_name: str | None = None) -> Package:
    """Read the package at ``path``. Raises ModelError that names what cannot be used."""
    if path.suffix == ".zip":
        with tempfile.TemporaryDirectory(prefix="exactile-") as folder:
            _extract(path, Path(folder))
            return _from_folder(Path(folder), path.name, output_name)
    return _from_folder(path, path.stem if path.is_file() else path.name, output_name)


def _declarations(path: Path) -> list[Path]:
    return [path / DECLARATION, path / "bioimageio.yaml", path / "model.yaml"]


def _extract(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
            if total > LARGEST_PACKAGE_BYTES:
                raise ModelError(f"{path}: the archive unpacks to {total} bytes; a model is smaller")
            archive.extractall(folder)  # zipfile makes names relative, and the size was checked
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise ModelError(f"{path} is no zip archive that can be read: {error}") from error


def _from_folder(path: Path, name: str, output_name: str | None) -> Package:
    described = _described(path, name)
    if len(described.inputs) != 1:
        raise ModelError(f"{name}: {len(described.inputs)} inputs; one image is expected")
    entry, (index, result) = described.inputs[0], _output(described, output_name, name)
    _check_axes(entry, name)
    read = _reader(described, entry, index, name)
    statistics, before = _before(entry, name)
    after = [step for found in result.postprocessing for step in _pixel_steps(found, name)]

    def load() -> Network:
        network = replace(read(), name=name, declared=None)  # the package itself declares it
        before_network(network, before)
        feature = network.trace().features.get(network.result.name or "")
        if feature is None or "c" not in feature.labels:
            if after:
                raise ModelError(f"{name}: the result has no channel axis, so its post-processing cannot be applied")
            return network
        axis = feature.labels.index("c")
        return after_network(network, after, axis=axis, rank=len(feature.labels), channels=feature.shape[axis])

    normalization = Normalization(statistics=statistics)
    network = load()
    dtype = str(getattr(entry.data, "type", "float32"))
    return Package(
        network=network,
        normalization=normalization,
        image_dtype=dtype if dtype in IMAGE_TYPES else "float32",
        classes=_class_names(result),
        agreement=_tested(load, normalization, entry, result, described, name),
        notes=tuple(_halo_notes(network, result)),
    )


def _described(path: Path, name: str) -> Any:
    try:
        from bioimageio.spec import InvalidDescr, ValidationContext, build_description
        from bioimageio.spec.model.v0_5 import ModelDescr
        from ruyaml import YAML
    except ImportError as error:
        raise ModelError("BioImage.IO packages need their reader: pip install 'exactile[bioimage]'") from error
    source = path if path.is_file() else next(filter(Path.is_file, _declarations(path)), path / DECLARATION)
    if not source.is_file():
        raise ModelError(f"{name}: no {DECLARATION} in the package")
    try:
        content = YAML(typ="safe").load(source.read_text(encoding="utf-8"))
        context = ValidationContext(root=source.parent.resolve(), file_name=source.name, perform_io_checks=False)
        described = build_description(content, context=context, format_version="latest")
    except Exception as error:
        raise ModelError(f"{name}: {DECLARATION} cannot be read: {error}") from error
    if isinstance(described, InvalidDescr):
        errors = [error for detail in described.validation_summary.details for error in detail.errors]
        told = "; ".join(f"{'.'.join(map(str, error.loc))}: {error.msg}" for error in errors[:3])
        raise ModelError(f"{name}: {DECLARATION} is not valid: {told}")
    if not isinstance(described, ModelDescr):
        raise ModelError(f"{name}: a {described.type} is described, not a model")
    return described


def _file(entry: Any, described: Any, name: str) -> Path:
    """Return the file of an entry within the package."""
    source = getattr(entry, "source", entry)
    root = Path(str(described.root)).resolve()
    path = (root / str(source)).resolve()
    if "://" in str(source):
        raise ModelError(f"{name}: {source} is not in the package; download the complete package first")
    if not path.is_relative_to(root):
        raise ModelError(f"{name}: {source} lies outside the package's folder")
    if not path.is_file():
        raise ModelError(f"{name}: {source} is missing in the package")
    return path


def _reader(described: Any, entry: Any, index: int, name: str) -> Callable[[], Network]:
    """Return how to read the network: from ONNX weights, or from TorchScript ones where there are no others."""
    weights = described.weights
    if weights.onnx is not None:
        model = _file(weights.onnx, described, name)
        return lambda: load_network(model, output_name=_onnx_name(model, index))
    if weights.torchscript is not None:
        script = _file(weights.torchscript, described, name)
        if index:
            raise ModelError(f"{name}: only the first output of TorchScript weights is supported; add ONNX weights")
        return lambda: _from_torchscript(script, entry, described, name)
    kinds = [kind for kind, found in weights if found is not None]
    raise ModelError(
        f"{name}: its weights are {', '.join(kinds)}; ONNX or TorchScript weights are needed; bioimageio.core adds them"
    )


def _from_torchscript(script: Path, entry: Any, described: Any, name: str) -> Network:
    from exactile_converters.readers.from_torch import from_file

    channels = next((len(axis.channel_names) for axis in entry.axes if axis.type == "channel"), 1)
    size = EXAMPLE_SIZE
    if entry.test_tensor is not None:  # a size that the network is known to take
        image = np.load(_file(entry.test_tensor, described, name), mmap_mode="r", allow_pickle=False)
        names = [str(axis.id) for axis in entry.axes]
        size = image.shape[names.index("y")], image.shape[names.index("x")]
    return from_file(script, channels=channels, size=size).network


def _onnx_name(model: Path, index: int) -> str:
    import onnx

    outputs = onnx.load(str(model), load_external_data=False).graph.output
    if index >= len(outputs):
        raise ModelError(f"{model.name} has {len(outputs)} outputs; the package describes more")
    return str(outputs[index].name)


def _output(described: Any, wanted: str | None, name: str) -> tuple[int, Any]:
    names = [str(output.id) for output in described.outputs]
    if wanted is not None and wanted not in names:
        raise ModelError(f"{name} has no output {wanted!r}; it has {', '.join(names)}")
    index = names.index(wanted) if wanted is not None else 0
    return index, described.outputs[index]


def _check_axes(entry: Any, name: str) -> None:
    kinds = [(axis.type, str(axis.id)) for axis in entry.axes]
    others = [label for kind, label in kinds if kind not in ("batch", "channel") and label not in ("y", "x")]
    if others:
        raise ModelError(f"{name}: axes {', '.join(others)} in addition to y and x; only planar images are supported")


def _before(entry: Any, name: str) -> tuple[ImageStatistics | None, list[PixelStep]]:
    """Return statistics of the stored samples, which must come first, and the steps after them."""
    statistics, steps = None, list[PixelStep]()
    for found in entry.preprocessing:
        if found.id in ("zero_mean_unit_variance", "scale_range"):
            if statistics is not None or steps:
                raise ModelError(
                    f"{name}: {found.id} of samples that were changed before is not supported; it must come first"
                )
            statistics = _statistics(found, entry, name)
        else:
            steps += _pixel_steps(found, name)
    return statistics, steps


def _statistics(found: Any, entry: Any, name: str) -> ImageStatistics:
    kwargs = found.kwargs
    axes = kwargs.axes
    per_channel = axes is not None and "channel" not in [str(axis) for axis in axes]
    if found.id == "zero_mean_unit_variance":
        return ImageStatistics(kind="zscore", epsilon=float(kwargs.eps), per_channel=per_channel)
    if kwargs.reference_tensor not in (None, entry.id):
        raise ModelError(f"{name}: scale_range by another tensor, {kwargs.reference_tensor}, is not supported")
    return ImageStatistics(
        kind="percentile",
        low=float(kwargs.min_percentile),
        high=float(kwargs.max_percentile),
        epsilon=float(kwargs.eps),
        per_channel=per_channel,
    )


def _pixel_steps(found: Any, name: str) -> list[PixelStep]:
    make = PIXEL_STEPS.get(found.id)
    if make is None:
        raise ModelError(
            f"{name}: the step {found.id} needs the whole result or code of its own, and cannot be done tile by tile; "
            "remove it from the package, and apply it to the result"
        )
    return [PixelStep(op=op, values=values) for op, values in make(getattr(found, "kwargs", None))]


def _clip(kwargs: Any) -> tuple[float, float]:
    low, high = kwargs.min, kwargs.max
    return -np.inf if low is None else float(low), np.inf if high is None else float(high)


PIXEL_STEPS: dict[str, Callable[[Any], list[tuple[Operator, tuple[float, ...]]]]] = {
    "ensure_dtype": lambda _: [],  # samples are float32 between image and network; labels are made at the end
    "scale_linear": lambda kwargs: [("Mul", _numbers(kwargs.gain)), ("Add", _numbers(kwargs.offset))],
    "fixed_zero_mean_unit_variance": lambda kwargs: [("Sub", _numbers(kwargs.mean)), ("Div", _numbers(kwargs.std))],
    "clip": lambda kwargs: [("Clip", _clip(kwargs))],
    "binarize": lambda kwargs: [("Greater", _numbers(kwargs.threshold))],
    "sigmoid": lambda _: [("Sigmoid", ())],
    "softmax": lambda _: [("Softmax", ())],
}
"""BioImage.IO's pixel-wise steps, as ONNX operators."""


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),)


def _class_names(result: Any) -> tuple[str, ...]:
    for axis in result.axes:
        if axis.type == "channel":
            return tuple(map(str, axis.channel_names))
    return ()


def _halo_notes(network: Network, result: Any) -> list[str]:
    geometry = network.trace().geometry
    notes = []
    for axis in result.axes if geometry is not None else ():
        declared = getattr(axis, "halo", None)
        if declared is None or str(axis.id) not in ("y", "x"):
            continue
        along = getattr(geometry, str(axis.id))
        needed = max(along.halo_before, along.halo_after)
        if declared < needed:
            notes.append(
                f"the package declares a halo of {declared} pixels along {axis.id}; the graph needs {needed}: with "
                "the declared halo, results are wrong at seams"
            )
        elif declared > needed:
            notes.append(f"the package declares a halo of {declared} pixels along {axis.id}; {needed} are enough")
    return notes


def _tested(
    load: Any, normalization: Normalization, entry: Any, result: Any, described: Any, name: str
) -> Agreement | None:
    """Run the package's test image through the whole chain. Raises ModelError where the result is not the package's."""
    if entry.test_tensor is None or result.test_tensor is None:
        return None
    taken = np.load(_file(entry.test_tensor, described, name), allow_pickle=False)
    given = np.load(_file(result.test_tensor, described, name), allow_pickle=False)
    image = np.ascontiguousarray(_arranged(taken, entry.axes, ("y", "x", "channel")))
    if image.dtype.name not in IMAGE_TYPES:
        image = image.astype(np.float32)
    network = load()
    geometry = network.trace().geometry
    if geometry is None:
        return None  # conversion reports the obstacles
    sink = ArraySink()
    model = deploy(network, image_dtype=image.dtype.name, normalization=normalization, output="raw", strips=False)
    Session(model).segment(ArraySource(image), sink, plan="whole")
    expected = _arranged(given, result.axes, ("channel", "y", "x")).astype(np.float64)
    if sink.result.shape != expected.shape:
        raise ModelError(f"{name}: its test image gives {sink.result.shape} here and {expected.shape} in the package")
    found = Agreement(
        max_abs=float(np.abs(sink.result - expected).max()), largest=float(np.abs(expected).max()), images=1
    )
    if found.max_abs > found.tolerance:
        raise ModelError(f"{name}: its test image does not give its test result: {found}")
    return found


def _arranged(array: NDArray[Any], axes: Any, wanted: tuple[str, ...]) -> NDArray[Any]:
    """Return the test tensor without its batch, with exactly the axes ``wanted``."""
    names = [axis.type if axis.type in ("batch", "channel") else str(axis.id) for axis in axes]
    if "batch" in names:
        array = array.take(0, names.index("batch"))
        names.remove("batch")
    if "channel" not in names:
        array, names = array[..., None], [*names, "channel"]
    return array.transpose([names.index(name) for name in wanted])
