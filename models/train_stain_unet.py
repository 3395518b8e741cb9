"""Train the small U-Net that ships as ``stain_unet.onnx``: ``python -m models.train_stain_unet``.

The image is the immunohistochemistry micrograph inside the scikit-image package (512 x 512 RGB, nothing is downloaded).
The labels come from a classical rule, colour deconvolution and Otsu's threshold, not from a pathologist: the network
learns to imitate the rule. That is enough to show large images with real content, and for nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry
from skimage.filters import gaussian, threshold_otsu
from torch import Tensor, nn
from torch.nn.functional import pad

from exactile_converters.torch_export import export_onnx
from models.unet import UNet

CLASSES = ("background", "nuclei", "DAB")
SCALE, MEAN, STD = 255.0, 0.5, 0.25  # the network's input is (sample / SCALE - MEAN) / STD

# Columns of the image. The gap keeps what a training crop sees out of the validation part.
TRAINING, VALIDATION = slice(0, 352), slice(384, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    seed: int = 20211104
    features: int = 8
    depth: int = 3
    steps: int = 900
    batch: int = 8
    crop_px: int = 96
    learning_rate: float = 3e-3


def label(image: np.ndarray) -> np.ndarray:
    """Apply the rule: (H, W, 3) uint8 -> (H, W) int64, 0 background and stroma, 1 haematoxylin (nuclei), 2 DAB.

    Each stain's optical density is smoothed a little and thresholded; where both pass, the one further above wins.
    """
    stains = gaussian(rgb2hed(image), sigma=1.5, channel_axis=2)
    haematoxylin, dab = stains[..., 0], stains[..., 2]
    over_haematoxylin = haematoxylin / threshold_otsu(haematoxylin)
    over_dab = dab / threshold_otsu(dab)
    labels = np.zeros(image.shape[:2], dtype=np.int64)
    labels[over_haematoxylin > 1] = 1
    labels[(over_dab > 1) & (over_dab > over_haematoxylin)] = 2
    return labels


def normalise(image: np.ndarray) -> Tensor:
    """Normalise (H, W, 3) uint8 -> (3, H, W) float32."""
    return torch.from_numpy((image.astype(np.float32) / SCALE - MEAN) / STD).permute(2, 0, 1)


def batch_of_crops(image: Tensor, labels: Tensor, recipe: Recipe, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return random crops, flipped, rotated and brightened: (N, 3, h, w) float32 and (N, h, w) int64."""
    crops, targets = [], []
    for _ in range(recipe.batch):
        y, x = (int(rng.integers(0, size - recipe.crop_px + 1)) for size in labels.shape)
        crop = image[:, y : y + recipe.crop_px, x : x + recipe.crop_px]
        target = labels[y : y + recipe.crop_px, x : x + recipe.crop_px]
        turns = int(rng.integers(4))
        crop, target = crop.rot90(turns, (1, 2)), target.rot90(turns, (0, 1))
        if rng.random() < 0.5:
            crop, target = crop.flip(2), target.flip(1)
        gain, shift = rng.uniform(0.85, 1.15), rng.uniform(-0.2, 0.2)
        crops.append(crop * gain + shift)
        targets.append(target)
    return torch.stack(crops), torch.stack(targets)


def train(
    image: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    build: Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """Train; ``build`` makes another network than the recipe's U-Net; 3 channels in, as many out as
    there are classes.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(1)  # sums in a fixed order: the seed decides the weights, not the number of cores
    rng = np.random.default_rng(recipe.seed)
    net = build() if build is not None else UNet(3, len(CLASSES), features=recipe.features, depth=recipe.depth)
    net = net.to(memory_format=torch.channels_last)  # a third faster on a CPU
    optimiser = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=recipe.steps)
    pixels, target = normalise(image), torch.from_numpy(labels)
    frequency = torch.bincount(target.flatten(), minlength=len(CLASSES)) / target.numel()
    loss_of = nn.CrossEntropyLoss(weight=frequency**-0.5)
    for step in range(recipe.steps):
        crops, targets = batch_of_crops(pixels, target, recipe, rng)
        loss = loss_of(net(crops.contiguous(memory_format=torch.channels_last)), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1:4d} of {recipe.steps}, loss {loss.item():.3f}", flush=True)
    return net.to(memory_format=torch.contiguous_format).eval()


@torch.no_grad()
def predict(net: nn.Module, image: np.ndarray) -> np.ndarray:
    """Predict (H, W, 3) uint8 -> labels (H, W) int64; the image is reflected up to a multiple of the
    network's stride.
    """
    height, width = image.shape[:2]
    padded = pad(normalise(image)[None], (0, -width % 32, 0, -height % 32), mode="reflect")
    labels: np.ndarray = net(padded)[0, :, :height, :width].argmax(0).numpy()
    return labels


def intersection_over_union(predicted: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return one figure a class."""
    return [
        float(((predicted == k) & (labels == k)).sum() / ((predicted == k) | (labels == k)).sum())
        for k in range(len(CLASSES))
    ]


def save(net: nn.Module, path: Path) -> None:
    """Write the ONNX file, with class names and normalisation in its metadata (the keys QGIS Deepness reads)."""
    export_onnx(net, path, channels=3)
    model = onnx.load(path)
    metadata = {
        "model_type": "Segmentor",
        "class_names": dict(enumerate(CLASSES)),
        "standardization_mean": [MEAN] * 3,
        "standardization_std": [STD] * 3,
    }
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("stain_unet.onnx"))
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="training steps (default %(default)s)")
    options = parser.parse_args()
    recipe = Recipe(steps=options.steps)
    image = immunohistochemistry()
    labels = label(image)
    start_s = time.perf_counter()
    net = train(image[:, TRAINING], labels[:, TRAINING], recipe)
    print(f"trained in {time.perf_counter() - start_s:.0f} s, seed {recipe.seed}")
    for part, columns in (("training", TRAINING), ("validation", VALIDATION)):
        scores = intersection_over_union(predict(net, image[:, columns]), labels[:, columns])
        named = ", ".join(f"{name} {score:.3f}" for name, score in zip(CLASSES, scores, strict=True))
        print(f"{part} IoU: {named}, mean {np.mean(scores):.3f}")
    save(net, options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")
    print(f"run it with --scale {SCALE:g} --mean {MEAN:g} --std {STD:g}")


if __name__ == "__main__":
    main()
