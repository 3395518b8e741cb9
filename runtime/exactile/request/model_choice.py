"""The network that a run was given: a bundle as it is, or an ONNX file that is converted in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from exactile.contract import Activation, DeployedModel, OutputKind
from exactile.errors import NotTileableError, OptionError
from exactile.request.converter import load_converter, load_prover
from exactile.request.meaning import tell_unverified
from exactile.request.stages import Stages

Deploy = Callable[[str, tuple[int, int]], DeployedModel]
"""From the dtype of an image's samples and its (height, width) to a model for it: of any size, unless it has obstacles,
or does better where the size is known.
"""


def why_not_run_before(plan: str, *, no_verify: bool) -> str:
    """Why a network is not run to check its claim before it is used; empty where it is."""
    if plan == "whole":
        return "one pass needs no proof"
    return "--no-verify" if no_verify else ""


class NormalizationChoice(Protocol):
    """How samples are normalised, as it was said."""

    @property
    def given(self) -> Sequence[str]:
        """The options that were used."""

    def build(self, converter: ModuleType) -> Any:
        """The converter's ``Normalization``. Raises OptionError where options contradict each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """The model and the options that go with it.

    ``unverified`` says why a network is not run to check its claim before it is used; empty where it is, within
    ``memory_bytes``.
    """

    path: Path
    normalization: NormalizationChoice
    output: OutputKind | None
    threshold: float | None
    activation: Activation | None
    output_name: str | None
    strips: bool
    unverified: str = ""
    memory_bytes: int | None = None
    progress: bool = False

    def load(self) -> Deploy:
        """Read the model. Raises ModelError, and OptionError for what is fixed in a bundle."""
        from exactile.bundle.opening import is_bundle

        return self._bundle() if is_bundle(self.path) else self._onnx()

    def _bundle(self) -> Deploy:
        from exactile.bundle.opening import open_bundle

        self._check_fixed(f"the bundle {self.path}; leave it out, or convert the model again with it")
        folder = self.path if self.path.is_dir() or not self.path.exists() else self.path.parent
        model = open_bundle(folder).model
        return lambda _dtype, _size: model

    def of(self, model: DeployedModel) -> Deploy:
        """For a model that was deployed before. Raises OptionError for what is fixed in it."""
        self._check_fixed(f"the model {self.path}; leave it out, or deploy the model again with it")
        return lambda _dtype, _size: model

    def _check_fixed(self, where: str) -> None:
        given = {
            "--output": self.output,
            "--threshold": self.threshold,
            "--activation": self.activation,
            "--output-name": self.output_name,
        }
        fixed = [*self.normalization.given, *(option for option, value in given.items() if value is not None)]
        if fixed:
            raise OptionError(f"{', '.join(fixed)}: fixed in {where}")

    def _onnx(self) -> Deploy:
        converter = load_converter()
        normalization = self.normalization.build(converter)
        read = [converter.load_network(self.path, output_name=self.output_name)]
        found = self._verdict(read[0])
        untileable: list[Any] = []
        sized = False

        def deploy(dtype: str, size: tuple[int, int]) -> DeployedModel:
            wish = {
                "image_dtype": dtype,
                "normalization": normalization,
                "output": self.output or "labels",
                "threshold": self.threshold,
                "activation": self.activation,
            }
            nonlocal sized
            while not untileable:
                # A network is used up when it is deployed; another type of samples, or size, needs another one.
                network = read.pop() if read else converter.load_network(self.path, output_name=self.output_name)
                image_size = size if sized else None

                def deployed(strips: bool, network: Any = network, image_size: Any = image_size) -> DeployedModel:
                    model: DeployedModel = converter.deploy(network, strips=strips, image_size=image_size, **wish)
                    return model

                try:
                    proven: DeployedModel = load_prover().proven(
                        deployed, found, name=self.path.name, strips=self.strips, skipped=self.unverified
                    )
                except NotTileableError:
                    untileable.append(network)  # as it was
                else:
                    if not proven.lacks(size):
                        return proven
                    sized = True
            whole: DeployedModel = converter.deploy_whole(untileable[0], image_size=size, **wish)
            return whole

        return deploy

    def _verdict(self, network: Any) -> Any:
        """What running ``network`` shows, now or when it was run before; None where it is not run or not tileable."""
        if self.unverified:
            return None
        with Stages(enabled=self.progress) as stages, suppress(NotTileableError):
            found = load_prover().check_once(
                self.path,
                network,
                output_name=self.output_name,
                strips=self.strips,
                memory_bytes=self.memory_bytes,
                progress=lambda done, steps: stages.update(f"checking {self.path.name}", done, steps),
            )
            if found.untried:
                tell_unverified(self.path.name, found.untried)
            return found
        return None
