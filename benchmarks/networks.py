"""Networks that are measured, deployed in memory."""

from __future__ import annotations

import io

import onnx
import torch
from torch import nn

from exactile.contract import DeployedModel
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.torch_export import export_onnx
from models.unet import UNet

CHANNELS, CLASSES = 3, 3
SCALE = Normalization(scale=(255.0,))


def balanced(module: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """Shift the last layer so that all classes occur, and labels show a seam."""
    module = module.eval()
    with torch.no_grad():
        scores = module(torch.rand(1, CHANNELS, 256, 256) if example is None else example)
        if module.head.bias is None:  # as in FC-DenseNet
            module.head.bias = nn.Parameter(torch.zeros(scores.shape[1]))
        module.head.bias -= scores.mean((0, 2, 3))
    return module


def unet(features: int, depth: int = 4, example: torch.Tensor | None = None) -> nn.Module:
    """Return the paper's U-Net ("same" padding, batch normalisation) with seeded random weights."""
    torch.manual_seed(0)
    return balanced(UNet(CHANNELS, CLASSES, features=features, depth=depth), example)


def exported(module: nn.Module) -> bytes:
    """Return ``image`` (N, C, H, W) -> ``logits``, as ONNX."""
    buffer = io.BytesIO()
    export_onnx(module, buffer, CHANNELS)
    return buffer.getvalue()


def prepared(module: nn.Module, name: str) -> Network:
    return prepare_network(onnx.load_from_string(exported(module)), name=name)


def deployed(module: nn.Module, name: str) -> DeployedModel:
    """Deploy for uint8 images, divided by 255; labels out."""
    return deploy(prepared(module, name), image_dtype="uint8", normalization=SCALE)
