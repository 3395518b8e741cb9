"""An ONNX file, deployed in memory for the images that come: the way that suits each is chosen here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from exactile.contract import DeployedModel
from exactile.errors import NotTileableError, PlanError
from exactile.request.converter import load_prover
from exactile.request.meaning import tell_unverified
from exactile.request.stages import Stages

Fits = Callable[[DeployedModel], bool]
"""Whether there is a plan for a model within the memory, and nothing speaks against it."""

WhenWhole = Literal["first", "only", "last"]
"""Of a network that takes statistics of the whole image, one pass over it is the way that is tried first, where it fits
the memory; the only one; or the last, where passes for statistics are none."""


def when_whole(plan: str, *, tiles: bool, fixed: bool = False) -> WhenWhole:
    """For the ``plan`` that is asked for; ``tiles``: something else is asked for that only tiles have.

    ``fixed``: statistics are given; one pass in which the network finds its own takes none.
    """
    if fixed:
        return "last"
    if plan == "whole":
        return "only"
    return "last" if plan in {"tile", "strip"} or tiles else "first"


@dataclass(slots=True, kw_only=True)
class OnnxModels:
    """The ONNX file ``path``; ``wish`` are the options of ``deploy`` beside the dtype of samples.

    ``unverified`` says why its claim is not checked before it is used; empty where it is.
    """

    path: Path
    converter: ModuleType
    wish: Mapping[str, Any]
    output_name: str | None
    strips: bool
    whole: WhenWhole
    unverified: str = ""
    memory_bytes: int | None = None
    progress: bool = False
    _read: list[Any] = field(default_factory=list)
    _verdict: Any = None
    _sized: bool = False
    _global: Any = None
    _left: tuple[Any, ...] = ()

    def read(self) -> None:
        """Read the file, and run the network where its claim is to be checked. Raises ModelError."""
        self._read.append(self._network())
        if not self.unverified:
            with suppress(NotTileableError):
                self._verdict = self._checked(self._read[0])

    def model_for(self, dtype: str, size: tuple[int, int], fits: Fits) -> DeployedModel:
        """For images of ``dtype`` and ``size``, (height, width)."""
        wish = {"image_dtype": dtype, **self.wish}
        if self._global is None:
            network = self._read.pop() if self._read else self._network()
            try:
                return self._tileable(network, wish, size)
            except NotTileableError:
                self._global = network  # as it was
                self._left = self.converter.obstacles_left(network)
        return self._of_global(wish, size, fits)

    def _network(self) -> Any:
        return self.converter.load_network(self.path, output_name=self.output_name)

    def _tileable(self, network: Any, wish: Mapping[str, Any], size: tuple[int, int]) -> DeployedModel:
        """Of any size, or of this one where more is known then; a network is used up when it is deployed."""
        if not self._sized:
            model = self._proven(lambda strips: self.converter.deploy(network, strips=strips, **wish), self._verdict)
            if not model.lacks(size):
                return model
            self._sized, network = True, self._network()
        return self._proven(
            lambda strips: self.converter.deploy(network, strips=strips, image_size=size, **wish), self._verdict
        )

    def _of_global(self, wish: Mapping[str, Any], size: tuple[int, int], fits: Fits) -> DeployedModel:
        """Of a network that is more than local: in one pass, or in passes where these are exact."""
        if self._left or self.whole != "last":
            try:
                whole: DeployedModel = self.converter.deploy_whole(self._global, image_size=size, **wish)
            except PlanError:
                if self._left:
                    raise
            else:
                if self._left or self.whole == "only" or fits(whole):
                    return whole
        verdict = None if self.unverified else self._checked(self._global)
        return self._proven(
            lambda strips: self.converter.deploy_in_passes(self._global, strips=strips, image_size=size, **wish),
            verdict,
        )

    def _proven(self, deploy: Callable[[bool], DeployedModel], verdict: Any) -> DeployedModel:
        model: DeployedModel = load_prover().proven(
            deploy, verdict, name=self.path.name, strips=self.strips, skipped=self.unverified
        )
        return model

    def _checked(self, network: Any) -> Any:
        """What running ``network`` shows, now or when it was run before. Raises NotTileableError."""
        with Stages(enabled=self.progress) as stages:
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
