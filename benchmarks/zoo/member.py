"""Build a network of a package: three channels in, one map out, random weights from a seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from tests.support.library_networks import with_seed
from tests.support.torchvision_operators import torchvision_declared

PACKAGES = {
    "smp": "segmentation-models-pytorch",
    "monai": "monai",
    "nnunet": "dynamic-network-architectures",
    "torchvision": "torchvision",
    "timm": "timm",
    "spandrel": "spandrel",
    "transformers": "transformers",
}
"""The first word of a network's name, and the distribution that it is built by."""

CLASSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A network of the zoo. ``size`` is the height and width of the export's example; both are multiples of ``stride``.

    Dynamo is told that all images are such multiples.
    """

    name: str
    make: Callable[[], nn.Module]
    size: tuple[int, int] = (64, 96)
    stride: int = 1

    @property
    def package(self) -> str:
        return PACKAGES[self.name.partition(" ")[0]]

    def module(self) -> nn.Module:
        """Build it, in evaluation mode. Raises ImportError where its package is missing."""
        with torchvision_declared(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return with_seed(self.make)


class Result(nn.Module):
    """The one map of a network that returns a dictionary, a list or an object: that called ``name``, or the last."""

    def __init__(self, network: nn.Module, name: str = "", *, channels_last: bool = False) -> None:
        super().__init__()
        self.network, self.name, self.channels_last = network, name, channels_last

    def forward(self, image: Tensor) -> Tensor:
        found: Any = self.network(image)
        if isinstance(found, dict):
            found = found[self.name]
        elif self.name:
            found = getattr(found, self.name)
        elif isinstance(found, list | tuple):
            found = found[-1]
        if self.channels_last:
            found = found.permute(0, 3, 1, 2)
        return found if found.ndim == 4 else found[:, None]


def smp(family: str, encoder: str, **options: Any) -> nn.Module:
    made = getattr(import_module("segmentation_models_pytorch"), family)
    return made(encoder, encoder_weights=None, classes=CLASSES, **options)


def monai(name: str, **options: Any) -> nn.Module:
    return Result(getattr(import_module("monai.networks.nets"), name)(**options))


def nnunet(name: str, norm: type[nn.Module], **options: Any) -> nn.Module:
    architectures = import_module(f"dynamic_network_architectures.architectures.{options.pop('module')}")
    return getattr(architectures, name)(
        3, 3, (8, 16, 32), nn.Conv2d, 3, (1, 2, 2), num_classes=CLASSES, n_conv_per_stage_decoder=(1, 1),
        conv_bias=True, norm_op=norm, nonlin=nn.LeakyReLU, **options
    )  # fmt: skip


def torchvision(name: str, **options: Any) -> nn.Module:
    made = getattr(import_module("torchvision.models.segmentation"), name)
    return Result(made(weights=None, weights_backbone=None, num_classes=CLASSES, **options), "out")


def timm(name: str, **options: Any) -> nn.Module:
    """A backbone up to its map of ``out_indices``."""
    channels_last = options.pop("channels_last", False)
    return Result(import_module("timm").create_model(name, features_only=True, **options), channels_last=channels_last)


def spandrel(path: str, **options: Any) -> nn.Module:
    """Super-resolution and restoration."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"spandrel.architectures.{module}"), name)(**options)


def transformers(name: str, configuration: str, result: str = "logits", **options: Any) -> nn.Module:
    package = import_module("transformers")
    return Result(getattr(package, name)(getattr(package, configuration)(**options)), result)


def upernet(backbone: str, **options: Any) -> nn.Module:
    package = import_module("transformers")
    features = getattr(package, backbone)(out_features=["stage1", "stage2", "stage3", "stage4"], **options)
    chosen = package.UperNetConfig(
        backbone_config=features, hidden_size=16, num_labels=CLASSES, use_auxiliary_head=False
    )
    return Result(package.UperNetForSemanticSegmentation(chosen), "logits")
