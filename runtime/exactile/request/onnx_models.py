"""An ONNX file, deployed in memory in the form that suits each image.

A stored form is used as it is: then the file is not read, and the converter not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from exactile.contract import DeployedModel
from exactile.errors import NotTileableError, PlanError
from exactile.request.converter import load_converter, load_prober, load_prover
from exactile.request.kept_models import KeptModels
from exactile.request.meaning import tell_unverified

Fits = Callable[[DeployedModel], bool]
"""Whether there is a plan for a model within the memory, and nothing prevents it."""

WhenWhole = Literal["first", "only", "last"]
"""For a network that takes statistics of the whole image: one pass over it is tried first, if it fits the memory; is
the only form; or is the last one, if there are no passes for statistics.
"""


class Normalizing(Protocol):
    """How samples are normalised."""

    @property
    def given(self) -> Sequence[str]:
        """The options that were used; if there are none, the model's file declares it."""

    def build(self, converter: ModuleType) -> Any:
        """Return the converter's ``Normalization``. Raises OptionError where options contradict each other."""


def when_whole(plan: str, *, tiles: bool, fixed: bool = False) -> WhenWhole:
    """Return it for the requested ``plan``; ``tiles``: another option is given that only tiles have.

    ``fixed``: statistics are given; one pass in which the network finds its own does not use them.
    """
    if fixed:
        return "last"
    if plan == "whole":
        return "only"
    return "last" if plan in {"tile", "strip"} or tiles else "first"


LOCAL, IN_PASSES, OBSTACLES = "local", "in passes", "obstacles"
"""Networks that run in tiles; those that do so after passes that find statistics of the whole image; others."""

WHOLE, PROBED = "whole", "probed"
"""Models of one pass over images of one size; and those with the halo that runs show."""


@dataclass(slots=True, kw_only=True)
class OnnxModels:
    """The ONNX file ``path``; ``wish`` are the options of ``deploy`` other than normalisation and the dtype of samples.

    ``unverified`` says why its claim is not checked before it is used; empty if it is. ``kept`` holds earlier deployed
    forms. ``trust_probe``: a network that no rule proves local runs in tiles by what runs show.
    """

    path: Path
    normalization: Normalizing
    wish: Mapping[str, Any]
    output_name: str | None
    strips: bool
    whole: WhenWhole
    kept: KeptModels
    unverified: str = ""
    memory_bytes: int | None = None
    progress: bool = False
    trust_probe: bool = False
    _nature: str | None = None
    _read: list[Any] = field(default_factory=list)
    _whole_wish: Mapping[str, Any] | None = None
    _verdict: Any = None
    _sized: bool = False
    _global: Any = None
    _trusted: Any = None

    def read(self) -> None:
        """Read the file, and run the network if its claim has to be checked; neither if it was deployed before.

        Raises ModelError, and OptionError if options contradict each other.
        """
        self._nature = self.kept.nature()
        if self._nature is None:
            self._normalization()
            self._read.append(self._network())
            with suppress(NotTileableError):
                self._proof(self._read[0])

    def model_for(self, dtype: str, size: tuple[int, int], fits: Fits) -> DeployedModel:
        """Return the model for images of ``dtype`` and ``size``, (height, width)."""
        if self._nature in (None, LOCAL):
            with suppress(NotTileableError):
                return self._local(dtype, size)
            self._nature = OBSTACLES if load_converter().obstacles_left(self._global) else IN_PASSES
            self._keep_nature()
        return self._of_global(dtype, size, fits)

    def _local(self, dtype: str, size: tuple[int, int]) -> DeployedModel:
        """Return the model for any size, or for this one if it is better."""
        if not self._sized:
            model = self._kept_or_deployed(dtype, None)
            if not model.lacks(size):
                return model
            self._sized = True
        return self._kept_or_deployed(dtype, size)

    def _kept_or_deployed(self, dtype: str, size: tuple[int, int] | None) -> DeployedModel:
        """Return the stored or newly deployed model. Deploying consumes the network. Raises NotTileableError, and keeps
        the network as it was.
        """
        known = self.kept.model(LOCAL, dtype, size)
        if known is not None:
            return known
        network, verdict, converter = self._taken(), None, load_converter()
        with suppress(NotTileableError):
            verdict = self._proof(network)
        wish = {"image_dtype": dtype, "image_size": size, **self._wished()}
        try:
            model = self._proven(lambda strips: converter.deploy(network, strips=strips, **wish), verdict)
        except NotTileableError:
            self._global = network
            raise
        if self._keep(model, LOCAL, dtype, size):
            self._nature = LOCAL
            self._keep_nature()
        return model

    def _of_global(self, dtype: str, size: tuple[int, int], fits: Fits) -> DeployedModel:
        """Return the model of a network that is more than local: in one pass, or in passes if these are exact."""
        only = self._nature == OBSTACLES
        if only and self.trust_probe:
            return self._by_probe(dtype)
        if only or self.whole != "last":
            whole = self._in_one_pass(dtype, size)
            if whole is not None and (only or self.whole == "only" or fits(whole)):
                return whole
        known = self.kept.model(IN_PASSES, dtype, size)
        if known is not None:
            return known
        network, converter = self._global_network(), load_converter()
        wish = {"image_dtype": dtype, "image_size": size, **self._wished()}
        verdict = self._proof(network)
        model = self._proven(lambda strips: converter.deploy_in_passes(network, strips=strips, **wish), verdict)
        self._keep(model, IN_PASSES, dtype, size)
        return model

    def _by_probe(self, dtype: str) -> DeployedModel:
        """For images of any size, with the halo that runs show. Raises VerificationError where they show none."""
        model = self.kept.model(PROBED, dtype)
        if model is None:
            prober, wish = load_prober(), {"image_dtype": dtype, **self._wished()}
            if self._trusted is None:
                from exactile.request.stages import Stages

                with Stages(enabled=self.progress) as stages:
                    stages.update(f"looking by runs how far {self.path.name} sees", 0, 1)
                    self._trusted = prober.trusted(self._global_network())
            model = prober.deploy_probed(self._global_network(), found=self._trusted, **wish)
            self.kept.keep(model, PROBED, dtype)
        return model

    def _in_one_pass(self, dtype: str, size: tuple[int, int]) -> DeployedModel | None:
        """Return the model for one pass; None if there is none, and passes are left. Raises PlanError
        if they are not.
        """
        only = self._nature == OBSTACLES
        known = self.kept.model(WHOLE, dtype, size)
        if known is not None or (not only and self.kept.refused(WHOLE, dtype, size)):
            return known
        wish = {"image_dtype": dtype, "image_size": size, **self._wished()}
        try:
            model: DeployedModel = load_converter().deploy_whole(self._global_network(), **wish)
        except PlanError as error:
            if only:
                raise
            self.kept.keep(str(error), WHOLE, dtype, size)
            return None
        self.kept.keep(model, WHOLE, dtype, size)
        return model

    def _wished(self) -> Mapping[str, Any]:
        """Return options of ``deploy``, in the converter's words."""
        if self._whole_wish is None:
            self._whole_wish = {"normalization": self._normalization(), **self.wish}
        return self._whole_wish

    def _normalization(self) -> Any:
        """Return None if the model's file decides. Raises OptionError if options contradict each other."""
        found = self.normalization.build(load_converter())
        return found if self.normalization.given else None

    def _network(self) -> Any:
        network = load_converter().load_network(self.path, output_name=self.output_name)
        self.kept.check_same()
        return network

    def _taken(self) -> Any:
        return self._read.pop() if self._read else self._network()

    def _global_network(self) -> Any:
        """Return a network that is not consumed."""
        if self._global is None:
            self._global = self._taken()
        return self._global

    def _keep(self, model: DeployedModel, kind: str, dtype: str, size: tuple[int, int] | None) -> bool:
        """Store the model, unless its claim could not be checked this time."""
        untried = self._verdict is not None and self._verdict.untried
        return not untried and self.kept.keep(model, kind, dtype, size)

    def _keep_nature(self) -> None:
        if self._nature is not None:
            self.kept.keep_nature(self._nature)

    def _proven(self, deploy: Callable[[bool], DeployedModel], verdict: Any) -> DeployedModel:
        model: DeployedModel = load_prover().proven(
            deploy, verdict, name=self.path.name, strips=self.strips, skipped=self.unverified
        )
        return model

    def _proof(self, network: Any) -> Any:
        """Return the result of running ``network``, now or earlier; None if it is not to be run.

        Raises NotTileableError.
        """
        if self.unverified or self._verdict is not None:
            return self._verdict
        from exactile.request.stages import Stages

        with Stages(enabled=self.progress and self._nature is None) as stages:
            self._verdict = load_prover().check_once(
                self.path,
                network,
                output_name=self.output_name,
                strips=self.strips,
                memory_bytes=self.memory_bytes,
                progress=lambda done, steps: stages.update(f"checking {self.path.name}", done, steps),
            )
            if self._verdict.untried:
                tell_unverified(self.path.name, self._verdict.untried)
        return self._verdict
