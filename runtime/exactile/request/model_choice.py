"""The network of a run: a bundle as it is, or an ONNX file that is converted in memory, or was before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from exactile.cache.models import ModelCache
from exactile.contract import Activation, DeployedModel, OutputKind
from exactile.errors import OptionError
from exactile.request.kept_models import KeptModels
from exactile.request.normalization import NormalizationNumbers
from exactile.request.onnx_models import Fits, OnnxModels, WhenWhole

Deploy = Callable[[str, tuple[int, int], Fits], DeployedModel]
"""From the dtype of an image's samples and its (height, width) to a model for it: of any size, unless it has obstacles
or is better if the size is known. Its argument decides whether a model for one pass over the image fits.
"""


def why_not_run_before(plan: str, *, no_verify: bool, fixed: bool = False) -> str:
    """Return why a network is not run to check its claim before it is used; empty if it is.

    With ``fixed`` statistics, one pass is not that of the network as given.
    """
    if plan == "whole" and not fixed:
        return "one pass needs no proof"
    return "--no-verify" if no_verify else ""


class NormalizationChoice(Protocol):
    """How samples are normalised, as requested."""

    @property
    def given(self) -> Sequence[str]:
        """The options that were used."""

    @property
    def numbers(self) -> NormalizationNumbers:
        """The same in numbers. Raises OptionError."""

    def build(self, converter: ModuleType) -> Any:
        """Return the converter's ``Normalization``. Raises OptionError where options contradict each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """The model and its options.

    ``unverified`` says why a network is not run to check its claim before it is used; empty if it is, within
    ``memory_bytes``. ``whole`` says when a network that takes statistics of the whole image runs in one pass. With
    ``cache``, the deployed form of an ONNX file is kept for later runs. ``trust_probe``: a network that no rule
    proves local runs in tiles with the halo that runs of it show, which is not proven.
    """

    path: Path
    normalization: NormalizationChoice
    output: OutputKind | None
    threshold: float | None
    activation: Activation | None
    output_name: str | None
    strips: bool
    whole: WhenWhole = "first"
    unverified: str = ""
    memory_bytes: int | None = None
    progress: bool = False
    cache: bool = True
    trust_probe: bool = False

    @property
    def model_cache(self) -> ModelCache | None:
        """The cache of deployed models. Raises OptionError."""
        return ModelCache.of_user() if self.cache else None

    def load(self) -> Deploy:
        """Read the model. Raises ModelError, and OptionError for what is fixed in a bundle."""
        from exactile.bundle.opening import is_bundle

        return self._bundle() if is_bundle(self.path) else self._onnx()

    def _bundle(self) -> Deploy:
        from exactile.bundle.opening import open_bundle

        self._check_fixed(f"the bundle {self.path}; leave it out, or convert the model again with it")
        folder = self.path if self.path.is_dir() or not self.path.exists() else self.path.parent
        model = open_bundle(folder).model
        return lambda _dtype, _size, _fits: model

    def of(self, model: DeployedModel) -> Deploy:
        """Return a deployed model. Raises OptionError for options that are fixed in it."""
        self._check_fixed(f"the model {self.path}; leave it out, or deploy the model again with it")
        return lambda _dtype, _size, _fits: model

    def _check_fixed(self, where: str) -> None:
        given = {
            "--output": self.output,
            "--threshold": self.threshold,
            "--activation": self.activation,
            "--output-name": self.output_name,
            "--trust-probe": self.trust_probe or None,
        }
        fixed = [*self.normalization.given, *(option for option, value in given.items() if value is not None)]
        if fixed:
            raise OptionError(f"{', '.join(fixed)}: fixed in {where}")

    def _onnx(self) -> Deploy:
        wish = {"output": self.output, "threshold": self.threshold, "activation": self.activation}
        if self.trust_probe and self.unverified:
            raise OptionError(
                "--trust-probe relies on runs that compare tiles with one pass, and they are left out "
                f"({self.unverified})"
            )
        options = (
            self.normalization.numbers,
            wish,
            self.output_name,
            self.strips,
            self.unverified,
            self.trust_probe,
        )
        models = OnnxModels(
            path=self.path,
            normalization=self.normalization,
            wish=wish,
            output_name=self.output_name,
            strips=self.strips,
            whole=self.whole,
            kept=KeptModels.of(self.path, repr(options), self.model_cache),
            unverified=self.unverified,
            memory_bytes=self.memory_bytes,
            progress=self.progress,
            trust_probe=self.trust_probe,
        )
        models.read()
        return models.model_for
