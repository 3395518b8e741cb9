"""Choose options of a deployed network: what was asked for overrides what its file declares; differences are noted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from exactile.contract import Activation, DeployedModel, LabelClass, OutputKind
from exactile.errors import OptionError
from exactile_converters.declared.class_colors import usual_color
from exactile_converters.declared.tiling import tiling_notes
from exactile_converters.graphs.io import MapDtype, Normalization, ResultWish
from exactile_converters.networks.declaration import Declaration, in_words
from exactile_converters.networks.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The ``normalization`` and ``wish`` that apply; ``notes`` say which the file declares, or differ from it."""

    normalization: Normalization
    wish: ResultWish
    declared: Declaration | None = None
    notes: tuple[str, ...] = ()

    def told_in(self, model: DeployedModel) -> DeployedModel:
        """Return ``model`` with the names of its classes, and with notes about its file."""
        declared = self.declared
        if declared is None:
            return model
        contract = model.contract
        labels, doubt = class_labels(declared, contract.result.classes)
        local = None if contract.obstacles or model.levels else contract.geometry
        notes = (*self.notes, *declared.notes, *doubt, *tiling_notes(declared, local))
        contract = replace(
            contract,
            result=replace(contract.result, labels=labels),
            notes=notes,
            pixel_size_um=declared.pixel_size_um,
        )
        keeping = model.keeping
        if keeping is not None:
            keeping = replace(keeping, model=self.told_in(keeping.model))
        return replace(model, contract=contract, keeping=keeping)


def chosen(
    network: Network,
    image_dtype: str,
    *,
    normalization: Normalization | None,
    output: OutputKind | None,
    map_dtype: MapDtype | None,
    threshold: float | None,
    activation: Activation | None,
) -> Choice:
    """Choose the options; None stands for one not asked for. Raises OptionError where the file leaves one open."""
    declared = network.declared
    if declared is None:
        wish = ResultWish(kind=output or "labels", map_dtype=map_dtype, threshold=threshold, activation=activation)
        return Choice(normalization=normalization or Normalization(), wish=wish)
    found, notes = _normalization(network, declared, normalization, image_dtype)
    kind = output or declared.output or "labels"
    if kind in ("labels", "multilabel"):
        threshold = declared.threshold if threshold is None else threshold
    if kind != "raw":
        activation = declared.activation if activation is None else activation
    wish = ResultWish(kind=kind, map_dtype=map_dtype, threshold=threshold, activation=activation)
    return Choice(normalization=found, wish=wish, declared=declared, notes=notes)


def normalization_for(network: Network, given: Normalization | None, image_dtype: str) -> Normalization:
    """Return the ``given`` one, or that of the network's file for samples of ``image_dtype``. Raises OptionError."""
    declared = network.declared
    if declared is None:
        return given or Normalization()
    return _normalization(network, declared, given, image_dtype)[0]


def _normalization(
    network: Network, declared: Declaration, given: Normalization | None, image_dtype: str
) -> tuple[Normalization, tuple[str, ...]]:
    if declared.scaling is None:
        return given or Normalization(), ()
    try:
        own = declared.scaling.normalization(image_dtype)
    except OptionError as error:
        if given is None:
            raise OptionError(f"{network.name}: {error}") from error
        return given, ()
    if given is None:
        return own, (f"samples of {image_dtype} become {in_words(own)}, as its file says ({declared.source})",)
    if _same(given, own):
        return given, ()
    says = f"its file ({declared.source}) says {in_words(own)}"
    return given, (f"samples of {image_dtype} become {in_words(given)}, as was asked for; {says}",)


def _same(one: Normalization, other: Normalization) -> bool:
    """Return whether both have the same effect; a single number is that of every channel."""
    pairs = zip(one.steps, other.steps, strict=True)
    return one.statistics == other.statistics and all(
        len({len(first), len(second), 1}) <= 2 and _spread(first, len(second)) == _spread(second, len(first))
        for (_, first, _), (_, second, _) in pairs
    )


def _spread(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return values if len(values) > 1 else values * count


def class_labels(declared: Declaration, classes: int) -> tuple[tuple[LabelClass, ...], tuple[str, ...]]:
    """Return the meaning of the labels; none, and a note, where the file names another number of classes."""
    if not declared.classes or not classes:
        return (), ()
    if len(declared.classes) != classes:
        names = f"its file names {len(declared.classes)} classes ({', '.join(declared.classes)})"
        return (), (f"{names}, but the network has {classes}: the names are left out",)
    colors = declared.colors if len(declared.colors) == classes else tuple(map(usual_color, range(classes)))
    named = enumerate(zip(declared.classes, colors, strict=True))
    return tuple(LabelClass(value=value, name=name, rgb=_rgb(color)) for value, (name, color) in named), ()


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue
