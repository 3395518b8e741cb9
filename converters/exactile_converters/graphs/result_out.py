"""Turn the network's own output into labels, planes of 0 and 1, probabilities, or a plain map."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir

from exactile.contract import Activation, OutputKind, ResultOutput
from exactile.errors import ModelError, OptionError
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import Labels
from exactile_converters.graphs.activation import MOVES, ROUNDING, Meaning, doubt_of, find_meaning, for_planes
from exactile_converters.graphs.builder import Builder
from exactile_converters.graphs.interval import UNIT, Interval
from exactile_converters.graphs.node_ranges import dtype_of
from exactile_converters.networks.network import Network

RESULT = "exactile_result"
MapDtype = Literal["float32", "float16", "uint8"]
DEFAULT_THRESHOLD = 0.5
LABEL_TYPES = ("uint8", "uint16", "int8", "int16", "uint32", "int32")
EXACT_IN_FLOAT32 = 1 << 24
LARGEST_HALF = 65504.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultWish:
    """The requested result. ``map_dtype`` is for maps, ``threshold`` for results that have one.

    ``activation`` turns the output into probabilities, where the user sets it.
    """

    kind: OutputKind = "labels"
    map_dtype: MapDtype | None = None
    threshold: float | None = None
    activation: Activation | None = None

    def __post_init__(self) -> None:
        if self.kind in ("labels", "multilabel") and self.map_dtype is not None:
            raise OptionError(f"the type of labels follows from what they are; {self.map_dtype} is for maps")
        if self.kind == "raw" and self.map_dtype == "uint8":
            raise OptionError("raw values have no range that 8 bits could hold; uint8 is for probabilities")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise OptionError(f"--threshold is one of a probability, between 0 and 1; got {self.threshold:g}")
        if self.threshold is not None and self.kind in ("probabilities", "raw"):
            raise OptionError(f"--threshold makes labels; --output {self.kind} has none. Leave it out")
        if self.activation is not None and self.kind == "raw":
            raise OptionError("--output raw is the network's own output; leave --activation out")


class ResultTail:
    """Appends the result to a network's graph."""

    def __init__(
        self, network: Network, features: Mapping[str, FeatureMap], ranges: Mapping[str, Interval], wish: ResultWish
    ) -> None:
        output = features[network.result.name or ""]
        self._build = Builder(network.model.graph, "exactile_out")
        self._name = network.name
        self._wish = wish
        self._value = network.result
        self._labels: Labels = output.labels
        self._features, self._ranges = features, ranges
        self._range = ranges[network.result.name or ""]
        self._dtype = dtype_of(network.result, features)
        self._channels = output.shape[output.labels.index("c")] if "c" in output.labels else 1
        if self._labels.count("c") > 1:
            raise ModelError(f"{self._name}: the output has more than one channel axis ({self._labels})")

    def append(self) -> tuple[ir.Value, ResultOutput]:
        """Return the new output and what it is. Raises OptionError where the output cannot become that."""
        match self._wish.kind:
            case "labels":
                return self._label_map() if self._holds_labels else self._labels_of_scores()
            case "multilabel":
                return self._planes()
            case "probabilities":
                return self._probabilities()
        return self._raw()

    @property
    def _holds_labels(self) -> bool:
        """Return whether the output is a map of integers, by its type or by the operator that computes it."""
        if self._dtype.kind != "f":
            if self._channels != 1:
                raise OptionError(
                    f"{self._name}: the output has {self._channels} channels of {self._dtype}, which are neither "
                    "scores nor labels; use --output raw"
                )
            return True
        return self._range.whole and self._channels == 1 and self._wish.activation is None

    def _label_map(self) -> tuple[ir.Value, ResultOutput]:
        """Return the network's own labels, in a type that holds all possible ones."""
        self._refuse_choices("the network gives labels")
        name = label_type(self._range)
        classes = self._classes()
        if name is not None and not self._range.nan:
            return self._finished_labels(self._value, name, ResultOutput(
                name=RESULT, kind="labels", dtype=name, channels=0, classes=classes,
                rule="labels as the network gives them"))  # fmt: skip
        given = "float32" if self._dtype.kind == "f" else "int64"
        spec = ResultOutput(
            name=RESULT, kind="labels", dtype=given, channels=0, classes=classes, stored="int32",
            rule="labels as the network gives them; each is checked to fit int32")  # fmt: skip
        return self._finished_labels(self._value, given, spec)

    def _classes(self) -> int:
        """Return the number of classes in a label map, where an arg max numbers them; else 0."""
        node = self._value.producer()
        while node is not None and node.op_type in MOVES:
            source = node.inputs[0]
            node = source.producer() if source is not None else None
        known = node is not None and node.op_type == "ArgMax" and self._range.high < EXACT_IN_FLOAT32
        return int(self._range.high) + 1 if known else 0

    def _refuse_choices(self, what: str) -> None:
        for option, given in (("--threshold", self._wish.threshold), ("--activation", self._wish.activation)):
            if given is not None:
                raise OptionError(f"{self._name}: {what}; leave {option} out")

    def _meaning(self) -> Meaning:
        return find_meaning(self._value, self._ranges, self._features, self._channels, self._wish.activation)

    def _labels_of_scores(self) -> tuple[ir.Value, ResultOutput]:
        meaning = self._meaning()
        if self._channels == 1:
            return self._foreground(meaning)
        if self._wish.threshold is not None:
            raise OptionError(
                f"{self._name}: the output has {self._channels} channels, of which the largest becomes the label; "
                "--threshold is for one channel, or for --output multilabel"
            )
        axis = self._labels.index("c")
        value = self._build.add("ArgMax", self._value, axis=axis, keepdims=0)
        missing = None
        if self._range.nan:
            total = self._build.add("ReduceSum", self._value, self._build.axes(axis), keepdims=0)
            missing = self._build.add("IsNaN", total)
        self._labels = tuple(label for label in self._labels if label != "c")
        rule = f"the channel with the largest of {self._channels} values"
        doubt = doubt_of(meaning, channels=self._channels, classes=True)
        spec = _labels(self._channels, rule=rule, doubt=doubt, activation=meaning.step)
        return self._classified(value, missing, spec)

    def _foreground(self, meaning: Meaning) -> tuple[ir.Value, ResultOutput]:
        threshold = DEFAULT_THRESHOLD if self._wish.threshold is None else self._wish.threshold
        value = self._above(meaning, threshold)
        missing = self._build.add("IsNaN", self._value) if self._range.nan else None
        value = self._build.add("Cast", value, to=ir.DataType.INT64.value)
        rule = f"1 where {_in_words(meaning)} is above {threshold:g}, else 0"
        doubt = doubt_of(meaning, channels=1, classes=True)
        spec = replace(_labels(2, rule=rule, doubt=doubt, activation=meaning.step), threshold=threshold)
        return self._classified(value, missing, spec)

    def _above(self, meaning: Meaning, threshold: float) -> ir.Value:
        """Return where the probability is above ``threshold``, without computing it."""
        limits = {"none": threshold, "exp": math.log(threshold), "sigmoid": math.log(threshold / (1 - threshold))}
        limit = self._build.constant(np.array(limits[meaning.step], self._dtype))
        return self._build.add("Greater", self._value, limit)

    def _classified(
        self, value: ir.Value, missing: ir.Value | None, spec: ResultOutput
    ) -> tuple[ir.Value, ResultOutput]:
        """Return the result for int64 labels ``value`` below ``spec.classes``; ``missing`` marks NaN scores."""
        if missing is not None:
            mark = spec.classes
            value = self._build.add("Where", missing, self._build.constant(np.array(mark, np.int64)), value)
            given = label_type(Interval(low=0.0, high=float(mark), whole=True)) or "int32"
            spec = replace(spec, dtype=given, stored=spec.dtype if given != spec.dtype else "", nan_label=mark)
        return self._finished_labels(value, spec.dtype, spec)

    def _planes(self) -> tuple[ir.Value, ResultOutput]:
        """Return a plane of 0 and 1 for each channel."""
        self._refuse_labels("planes")
        meaning = self._meaning()
        if self._wish.activation is None:
            meaning = for_planes(meaning)
        threshold = DEFAULT_THRESHOLD if self._wish.threshold is None else self._wish.threshold
        scores, step = self._value, meaning.step
        if meaning.step == "softmax":
            self._value = self._build.add("Softmax", self._value, axis=self._labels.index("c"))
            meaning = replace(meaning, step="none", because="after a softmax over the channels")
        value = self._build.add("Cast", self._above(meaning, threshold), to=ir.DataType.INT64.value)
        rule = f"for each channel, 1 where {_in_words(meaning)} is above {threshold:g}, else 0"
        spec = ResultOutput(
            name=RESULT, kind="multilabel", dtype="uint8", channels=self._channels, classes=self._channels,
            rule=rule, doubt=doubt_of(meaning, channels=self._channels, classes=False),
            threshold=threshold, activation=step)  # fmt: skip
        if self._range.nan:
            mark = self._build.constant(np.array(2, np.int64))
            value = self._build.add("Where", self._build.add("IsNaN", scores), mark, value)
            spec = replace(spec, nan_label=2)
        value = self._build.add("Cast", value, to=ir.DataType.UINT8.value)
        return self._finished_map(value, spec)

    def _refuse_labels(self, what: str) -> None:
        if self._dtype.kind != "f" or (self._range.whole and self._channels == 1 and self._wish.activation is None):
            raise OptionError(f"{self._name}: the network gives labels; it has no {what}. Use --output labels")

    def _probabilities(self) -> tuple[ir.Value, ResultOutput]:
        self._refuse_labels("probabilities")
        meaning, dtype = self._meaning(), self._wish.map_dtype or "float32"
        found = replace(UNIT, nan=self._range.nan or not self._range.bounded)
        if meaning.step == "none":
            found = self._range
            if found.low > 1 + ROUNDING or found.high < -ROUNDING:
                raise OptionError(
                    f"{self._name}: the output lies between {found.low:g} and {found.high:g}, and is no probability; "
                    "use --activation sigmoid or softmax, or --output raw"
                )
        value = self._activated(meaning)
        unproven = not found.within(0.0, 1.0, slack=ROUNDING)
        spec = ResultOutput(
            name=RESULT, kind="probabilities", dtype=dtype, channels=self._channels, classes=self._channels,
            rule=f"{_in_words(meaning)}", doubt=doubt_of(meaning, channels=self._channels, classes=False),
            activation=meaning.step, may_be_nan=found.nan and dtype != "uint8", unproven=unproven)  # fmt: skip
        if dtype == "uint8" and (unproven or found.nan):
            spec = replace(spec, dtype="float32", stored="uint8")
        value = self._in_bytes(value) if spec.dtype == "uint8" else self._cast(value, self._dtype, spec.dtype)
        return self._finished_map(value, spec)

    def _activated(self, meaning: Meaning) -> ir.Value:
        match meaning.step:
            case "exp":
                return self._build.add("Exp", self._value)
            case "sigmoid":
                return self._build.add("Sigmoid", self._value)
            case "softmax":
                return self._build.add("Softmax", self._value, axis=self._labels.index("c"))
        return self._value

    def _in_bytes(self, value: ir.Value) -> ir.Value:
        value = self._cast(value, self._dtype, "float32")
        if not self._range.within(0.0, 1.0):
            bounds = [self._build.constant(np.array(bound, np.float32)) for bound in (0, 1)]
            value = self._build.add("Clip", value, *bounds)
        value = self._build.add("Mul", value, self._build.constant(np.array(255, np.float32)))
        value = self._build.add("Round", value)
        return self._build.add("Cast", value, to=ir.DataType.UINT8.value)

    def _raw(self) -> tuple[ir.Value, ResultOutput]:
        asked = self._wish.map_dtype or "float32"
        limit = LARGEST_HALF if asked == "float16" else EXACT_IN_FLOAT32 if self._dtype.kind in "iu" else math.inf
        if self._dtype.kind in "iu" and asked == "float16":
            limit = 1 << 11
        given: str = asked
        if not self._range.within(-limit, limit):
            given = "int64" if self._dtype.kind in "iu" else "float32"
        spec = ResultOutput(
            name=RESULT, kind="raw", dtype=given, channels=self._channels, classes=self._channels,
            rule="the network's own output", stored=asked if given != asked else "",
            may_be_nan=self._range.nan and self._dtype.kind == "f")  # fmt: skip
        return self._finished_map(self._cast(self._value, self._dtype, given), spec)

    def _cast(self, value: ir.Value, given: np.dtype[np.generic], wanted: str) -> ir.Value:
        if given == np.dtype(wanted):
            return value
        return self._build.add("Cast", value, to=ir.DataType.from_numpy(np.dtype(wanted)).value)

    def _finished_labels(self, value: ir.Value, dtype: str, spec: ResultOutput) -> tuple[ir.Value, ResultOutput]:
        kind = ir.DataType.from_numpy(np.dtype(dtype))
        value = self._build.add("Cast", value, to=kind.value)
        value = self._arranged(value, ("y", "x"))
        value.type, value.shape = ir.TensorType(kind), ir.Shape([None, None])
        return value, spec

    def _finished_map(self, value: ir.Value, spec: ResultOutput) -> tuple[ir.Value, ResultOutput]:
        value = self._arranged(value, ("c", "y", "x"))
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(spec.dtype)))
        value.shape = ir.Shape([self._channels, None, None])
        return value, spec

    def _arranged(self, value: ir.Value, wanted: tuple[str, ...]) -> ir.Value:
        """Bring ``value`` to exactly the axes ``wanted``, under its final name."""
        gone = [dim for dim, label in enumerate(self._labels) if label not in wanted]
        if gone:
            value = self._build.add("Squeeze", value, self._build.axes(*gone))
        labels = [label for label in self._labels if label in wanted]
        for missing in [label for label in wanted if label not in labels]:
            value = self._build.add("Unsqueeze", value, self._build.axes(0))
            labels.insert(0, missing)  # type: ignore[arg-type]
        order = [labels.index(label) for label in wanted]  # type: ignore[arg-type]
        if order != sorted(order):
            return self._build.add("Transpose", value, name=RESULT, perm=order)
        return self._build.add("Identity", value, name=RESULT)


def _labels(classes: int, *, rule: str, doubt: str, activation: str) -> ResultOutput:
    """Return labels from 0 to below ``classes``, in the smallest type that holds them."""
    dtype = label_type(Interval(low=0.0, high=classes - 1.0, whole=True)) or "int32"
    return ResultOutput(
        name=RESULT, kind="labels", dtype=dtype, channels=0, classes=classes, rule=rule, doubt=doubt,
        activation=activation)  # fmt: skip


def label_type(found: Interval) -> str | None:
    """Return the smallest type that holds all labels in ``found``; None where none of up to 32 bits does."""
    for name in LABEL_TYPES:
        info = np.iinfo(name)
        if found.within(float(info.min), float(info.max)):
            return name
    return None


def _in_words(meaning: Meaning) -> str:
    match meaning.step:
        case "exp":
            return f"e to the power of the output ({meaning.because})"
        case "none":
            return f"the output as it is ({meaning.because})"
    return f"the {meaning.step} of the output ({meaning.because})"
