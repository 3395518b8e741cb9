"""Torchvision beside a CPU build of PyTorch, where its compiled half is missing: its operators, declared."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_DECLARED = torch.library.Library("torchvision", "FRAGMENT")
"""Kept: what it declares goes with it."""


@contextmanager
def torchvision_declared() -> Iterator[None]:
    """Torchvision, and what imports it, can be imported here, without a warning."""
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _DECLARED.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
