"""Load a model of any kind as a network: choose its entry, and keep what its framework says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exactile.file_kinds import is_zeiss_model
from exactile_converters.declared.deepimagej import refuse_deepimagej
from exactile_converters.declared.qupath import classifier_in
from exactile_converters.networks.agreement import Agreement
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import load_network
from exactile_converters.readers.from_bioimage import Package, from_package, is_package

if TYPE_CHECKING:
    from torch import nn

KERAS_SUFFIXES = {".keras", ".h5"}
TORCH_SUFFIXES = {".pt", ".pth", ".pt2", ".torchscript"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A loaded network; ``agreement`` with its framework is None for ONNX.

    ``package`` is what a BioImage.IO package declares in addition: normalisation, sample type, class names.
    """

    network: Network
    source: str
    agreement: Agreement | None
    package: Package | None = None


def load_entry(
    source: str | Path | nn.Module,
    *,
    output_name: str | None = None,
    input_channels: int | None = None,
    example_size: tuple[int, int] | None = None,
) -> Entry:
    """Load a model of any of the kinds that ``convert`` takes; channels and size are for PyTorch modules."""
    if not isinstance(source, (str, os.PathLike)):
        from exactile_converters.readers.from_torch import EXAMPLE_SIZE, from_module

        size = example_size or EXAMPLE_SIZE
        made = from_module(source, channels=input_channels, size=size, output_name=output_name)
        return Entry(network=made.network, source="PyTorch module", agreement=made.agreement)
    path = Path(source)
    if is_package(path) and not is_zeiss_model(path):
        found = from_package(path, output_name=output_name)
        return Entry(network=found.network, source="BioImage.IO package", agreement=found.agreement, package=found)
    if path.is_dir():
        refuse_deepimagej(path)
        path = classifier_in(path) or path
    if path.suffix in KERAS_SUFFIXES or (path / "saved_model.pb").is_file():
        from exactile_converters.readers.from_keras import from_keras, from_saved_model

        saved = path.suffix not in KERAS_SUFFIXES
        exported = (from_saved_model if saved else from_keras)(path, output_name=output_name)
        kind = "TensorFlow SavedModel" if saved else "Keras"
        return Entry(network=exported.network, source=kind, agreement=exported.agreement)
    if path.suffix in TORCH_SUFFIXES:
        from exactile_converters.readers.from_torch import from_file

        made = from_file(path, channels=input_channels, output_name=output_name)
        kind = "PyTorch exported program" if path.suffix == ".pt2" else "TorchScript"
        return Entry(network=made.network, source=kind, agreement=made.agreement)
    network = load_network(path, output_name=output_name)
    source = network.declared.source if network.declared is not None else "ONNX"
    return Entry(network=network, source=source, agreement=None)


def load_factory(
    reference: str, weights: Path | None, *, output_name: str | None = None, input_channels: int | None = None
) -> Entry:
    """Call ``package.module:factory``, load ``weights`` into the module that it returns, and export that."""
    from exactile_converters.readers.from_torch import from_factory

    made = from_factory(reference, weights, channels=input_channels, output_name=output_name)
    return Entry(network=made.network, source=f"PyTorch module {reference}", agreement=made.agreement)
