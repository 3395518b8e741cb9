"""The result that a graph gives: labels, and what they mean, or maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OutputKind = Literal["labels", "multilabel", "probabilities", "raw"]
Activation = Literal["none", "sigmoid", "softmax"]
"""What is left to apply to a network's output to have probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelClass:
    """What a label stands for, and its colour, each part 0 to 255.

    ``code`` is a coded concept, SCHEME:VALUE:MEANING, such as "SCT:108369006:Neoplasm"; empty where there is none.
    """

    value: int
    name: str
    rgb: tuple[int, int, int]
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOutput:
    """The graph's output: ``(H, W)`` for labels (``channels`` is 0), else ``(C, H, W)``.

    ``classes``: how many the labels tell apart; 0 where that is not known; ``labels`` what they mean.
    ``rule`` says in a sentence how numbers became the result, ``doubt`` what the graph does not prove of it;
    ``threshold`` is that of the probability, where there is one; ``activation`` what makes probabilities of the
    network's output: none, sigmoid, softmax or exp; empty where it holds none.

    ``dtype`` is what the graph gives, ``stored`` what is written where that is not the same: each value is then checked
    on its way. ``nan_label`` marks labels whose scores are not numbers, ``may_be_nan`` is true of maps that can hold
    such, ``unproven`` of probabilities that are not known to be within 0 to 1.
    """

    name: str
    kind: OutputKind
    dtype: str
    channels: int
    classes: int = 0
    labels: tuple[LabelClass, ...] = ()
    rule: str = ""
    doubt: str = ""
    threshold: float | None = None
    activation: str = ""
    stored: str = ""
    nan_label: int | None = None
    may_be_nan: bool = False
    unproven: bool = False

    @property
    def stored_dtype(self) -> str:
        """The type of what is written."""
        return self.stored or self.dtype
