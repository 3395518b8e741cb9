"""Operators known to tie every pixel to the whole image: obstacles with a precise remedy."""

from __future__ import annotations

from exactile_converters.geometry.node_view import NodeView
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.registry import Transfer, rule


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pooling(_node: NodeView) -> Transfer:
    """Squeeze-and-excitation and image-level features."""
    raise ObstacleError(
        "it pools over the whole image, so that every pixel depends on all others",
        "Use an architecture without global pooling or squeeze-and-excitation, or replace it by pooling over a window",
    )


@rule("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "LayerNormalization")
def statistics_over_space(_node: NodeView) -> Transfer:
    """Normalisation by statistics of the image itself."""
    raise ObstacleError(
        "it normalises by statistics of the whole image",
        "Train with batch normalisation (frozen at inference), which tiles exactly",
    )


@rule("Gemm", "Flatten")
def fully_connected(_node: NodeView) -> Transfer:
    """Classifier heads."""
    raise ObstacleError(
        "it connects all positions of the image", "Use a fully convolutional head (1x1 convolutions) instead"
    )
