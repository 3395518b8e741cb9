"""What a network is deployed for: what was asked for wins over what its file declares, and what differs is said."""

from __future__ import annotations

from dataclasses import dataclass, replace

from exactile.contract import Activation, DeployedModel, LabelClass, OutputKind
from exactile.errors import OptionError
from exactile_converters.class_colors import usual_color
from exactile_converters.declared.declaration import Declaration
from exactile_converters.declared.tiling import tiling_notes
from exactile_converters.from_onnx import Network
from exactile_converters.graphs.io import MapDtype, Normalization, ResultWish


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """``normalization`` and ``wish`` are in force; ``notes`` say what of them the file declares, or declares otherwise."""

    normalization: Normalization
    wish: ResultWish
    declared: Declaration | None = None
    notes: tuple[str, ...] = ()

    def told_in(self, model: DeployedModel) -> DeployedModel:
        """``model`` with the names of its classes, and with what people should know of its file."""
        declared = self.declared
        if declared is None:
            return model
        contract = model.contract
        labels, doubt = class_labels(declared, contract.result.classes)
        notes = (*self.notes, *declared.notes, *doubt, *tiling_notes(declared, model))
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
    """None stands for what was not asked for. Raises OptionError where the file leaves open what must be known."""
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
    """What was ``given``, or what the network's file declares for samples of ``image_dtype``. Raises OptionError."""
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
    if given == own:
        return given, ()
    return given, (
        f"samples of {image_dtype} become {in_words(given)}, as was asked for; its file ({declared.source}) says "
        f"{in_words(own)}",
    )


def in_words(normalization: Normalization) -> str:
    """A formula, without the steps that change nothing."""
    if normalization.statistics is not None:
        return f"what --normalize {normalization.statistics.kind} makes of them"
    text = "sample"
    for (op, values, neutral), sign in zip(normalization.steps, ("/", "-", "/"), strict=True):
        if all(value == neutral for value in values):
            continue
        numbers = ", ".join(f"{value:g}" for value in values)
        left = f"({text})" if op == "Div" and text != "sample" else text
        text = f"{left} {sign} {numbers if len(values) == 1 else f'[{numbers}]'}"
    return "what they are as stored" if text == "sample" else text


def class_labels(declared: Declaration, classes: int) -> tuple[tuple[LabelClass, ...], tuple[str, ...]]:
    """What the labels mean; none, and a sentence, where the file names another number of classes."""
    if not declared.classes or not classes:
        return (), ()
    if len(declared.classes) != classes:
        return (), (
            f"its file names {len(declared.classes)} classes ({', '.join(declared.classes)}), and the network tells "
            f"{classes} apart: the names are left out",
        )
    colors = declared.colors if len(declared.colors) == classes else tuple(map(usual_color, range(classes)))
    named = enumerate(zip(declared.classes, colors, strict=True))
    return tuple(LabelClass(value=value, name=name, rgb=_rgb(color)) for value, (name, color) in named), ()


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue
