"""The network that a run was given: a bundle as it is, or an ONNX file that is converted in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exactile.cli.converter import load_converter
from exactile.cli.normalization import NormalizationOptions
from exactile.contract import Activation, DeployedModel, OutputKind
from exactile.errors import OptionError

Deploy = Callable[[str], DeployedModel]
"""From the dtype of an image's samples to a model for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """The model argument and the options that go with it, as typed."""

    path: Path
    normalization: NormalizationOptions
    output: OutputKind | None
    threshold: float | None
    activation: Activation | None
    output_name: str | None
    strips: bool

    def load(self) -> Deploy:
        """Read the model. Raises ModelError, and OptionError for what is fixed in a bundle."""
        from exactile.bundle.opening import is_bundle

        return self._bundle() if is_bundle(self.path) else self._onnx()

    def _bundle(self) -> Deploy:
        from exactile.bundle.opening import open_bundle

        given = {
            "--output": self.output,
            "--threshold": self.threshold,
            "--activation": self.activation,
            "--output-name": self.output_name,
        }
        fixed = [*self.normalization.given, *(option for option, value in given.items() if value is not None)]
        if fixed:
            raise OptionError(
                f"{', '.join(fixed)}: fixed in the bundle {self.path}; leave it out, or convert the model again with it"
            )
        folder = self.path if self.path.is_dir() or not self.path.exists() else self.path.parent
        model = open_bundle(folder).model
        return lambda _dtype: model

    def _onnx(self) -> Deploy:
        converter = load_converter()
        normalization = self.normalization.build(converter)
        read = [converter.load_network(self.path, output_name=self.output_name)]

        def deploy(dtype: str) -> DeployedModel:
            # A network is used up when it is deployed; another type of samples needs another one.
            network = read.pop() if read else converter.load_network(self.path, output_name=self.output_name)
            deployed: DeployedModel = converter.deploy(
                network,
                image_dtype=dtype,
                normalization=normalization,
                output=self.output or "labels",
                threshold=self.threshold,
                activation=self.activation,
                strips=self.strips,
            )
            return deployed

        return deploy
