"""Operators known to prevent tiling, each with its reason and what to do about it."""

from __future__ import annotations

from exactile_converters.geometry.node_view import NodeView
from exactile_converters.geometry.obstacle import ObstacleError, StatisticError
from exactile_converters.geometry.registry import Transfer, rule
from exactile_converters.geometry.sliding import RUNTIME_DOMAIN

CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}

WHOLE_IMAGE = "so that every pixel depends on all others"
WINDOWED = "Use an architecture that looks at a bounded neighbourhood, or run the whole image at once"
NO_SAMPLING = "Use an architecture without sampling at computed positions, or run the whole image at once"
FIXED_SHAPES = "Do such post-processing outside the network, on the finished result"

_REASONS: dict[str, tuple[str, str]] = {
    "GlobalAveragePool GlobalMaxPool GlobalLpPool": (
        f"it pools over the whole image (squeeze-and-excitation, image-level features), {WHOLE_IMAGE}",
        "Use an architecture without global pooling or squeeze-and-excitation, or replace it by pooling over a window",
    ),
    "InstanceNormalization GroupNormalization": (
        "it normalises by statistics of the whole image",
        "Train with batch normalisation (frozen at inference), which tiles exactly",
    ),
    "Attention MultiHeadAttention": (f"it is attention over positions, {WHOLE_IMAGE}", WINDOWED),
    "LSTM GRU RNN": (f"it runs along a sequence of positions, {WHOLE_IMAGE}", WINDOWED),
    "DFT STFT": (f"it is a transform over a whole axis, {WHOLE_IMAGE}", WINDOWED),
    "DynamicQuantizeLinear": (
        "it takes its scale from the smallest and largest value of the whole image",
        "Quantise statically, with calibrated scales",
    ),
    "GridSample DeformConv AffineGrid": (
        "it samples at positions computed while it runs, so that its reach has no bound",
        NO_SAMPLING,
    ),
    "RoiAlign MaxRoiPool": ("it looks at boxes found in the image, wherever they lie", NO_SAMPLING),
    "NonMaxSuppression NonZero Unique Compress StringSplit": (
        "the size of its output depends on the data, not on the image's size alone",
        FIXED_SHAPES,
    ),
    "ScatterND ScatterElements Scatter GatherND": (
        "it reads or writes at computed positions of the image",
        NO_SAMPLING,
    ),
    "ReverseSequence Trilu EyeLike Det Col2Im": ("it treats pixels by their position in the image", WINDOWED),
    "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike": (
        "it draws random numbers, so that no two passes agree",
        "Export the network in evaluation mode",
    ),
    "If Loop Scan SequenceMap": (
        "it holds subgraphs that run by a condition or a number that is not constant",
        "Export the network without control flow (trace it with an example of fixed rank)",
    ),
    "ConcatFromSequence SequenceAt SequenceConstruct SequenceErase SequenceInsert SequenceLength SplitToSequence "
    "Optional OptionalGetElement OptionalHasElement": (
        "it works on a sequence, or on a value that may be missing, whose length or positions are not constant",
        "Export the network with constant lengths and positions",
    ),
}
BARRIERS = {("", op): reason for ops, reason in _REASONS.items() for op in ops.split()}

STATISTICS = {BARRIERS["", op] for op in ("GlobalAveragePool", "InstanceNormalization")}
"""Reasons of operators that compute numbers from the whole map."""

LIKE = {
    "Attention": "Attention",
    "AttnLSTM": "LSTM",
    "CropAndResize": "RoiAlign",
    "DynamicQuantizeLSTM": "LSTM",
    "DynamicQuantizeMatMul": "DynamicQuantizeLinear",
    "GatherND": "GatherND",
    "GridSample": "GridSample",
    "GroupQueryAttention": "Attention",
    "LinearAttention": "Attention",
    "QAttention": "Attention",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "SparseAttention": "Attention",
    "Trilu": "Trilu",
    "Unique": "Unique",
    "MultiHeadAttention": "Attention",
}
"""Operators of ONNX Runtime's own domain, and the ONNX operators with the same reason."""

BARRIERS |= {(RUNTIME_DOMAIN, op): BARRIERS["", like] for op, like in LIKE.items()}


@rule(*(op for domain, op in BARRIERS if not domain))
@rule(*LIKE, domain=RUNTIME_DOMAIN)
def barrier(node: NodeView) -> Transfer:
    """Raise the table's obstacle, whatever the node's attributes."""
    reason = BARRIERS[node.node.domain, node.op]
    raise (StatisticError if reason in STATISTICS else ObstacleError)(*reason)
