"""The networks of the checks, made where they are used: their weights are too large to be carried.

Weights are random, from a seed, and the last layer is shifted so that all classes occur; those of ``... integer`` are
small integers, so that every sum is exact in whatever order it is taken. ``stain_unet`` is trained, and comes along.
A network that was made lies in the folder of its step as ONNX, and deployed, for the next check, which then runs
without torch: what torch loads of CUDA must not hide what is missing.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import onnx

from benchmarks.gpu_kit.network_names import IN_PASSES, TRAINED, is_integer
from benchmarks.harness.worker import ROOT
from exactile.contract import DeployedModel
from exactile_converters.deploy import Normalization, deploy, deploy_in_passes
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.reduced_precision.precision import at_precision

Output = Literal["labels", "raw"]
SCALE = Normalization(scale=(255.0,))
TRAINED_SCALE = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))


def onnx_file(name: str, folder: Path) -> Path:
    """Return ``image`` (N, C, H, W) float32 -> ``logits`` (N, K, H, W), created if it does not exist."""
    if name == TRAINED:
        return ROOT / "models" / "stain_unet.onnx"
    path = _place(folder) / f"{_file_name(name)}.onnx"
    if not path.exists():
        from benchmarks.gpu_kit.modules import exported, module

        _appear(path, exported(module(name)))
    return path


def model(name: str, folder: Path, *, output: Output = "labels", precision: Literal["fp32", "fp16"] = "fp32"):
    """Return the network deployed for uint8 images, made if it is not in ``folder``."""
    path = _place(folder) / f"{_file_name(name)}-{output}-{precision}.pickle"
    if not path.exists():
        network = prepare_network(onnx.load(onnx_file(name, folder)), name=name)
        if precision == "fp16":
            network = at_precision(network, "fp16", [], "percentile")
        _appear(path, pickle.dumps(_deployed(network, name, output)))
    deployed: DeployedModel = pickle.loads(path.read_bytes())
    return deployed


def normalization(name: str) -> Normalization:
    """Return what is done to samples before the network sees them."""
    if name == TRAINED:
        return TRAINED_SCALE
    return Normalization() if is_integer(name) else SCALE


def make_all(names: Sequence[str], outputs: Sequence[Output], folder: Path) -> dict[str, Any]:
    """Make networks side by side. A check."""
    cores = len(os.sched_getaffinity(0))
    workers = max(1, min(len(names), cores // 2))
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_limit_threads, initargs=(max(1, cores // workers),)
    ) as pool:
        rows = list(pool.map(_make, names, [tuple(outputs)] * len(names), [folder] * len(names)))
    return {"passed": True, "rows": rows}


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _make(name: str, outputs: Sequence[Output], folder: Path) -> dict[str, Any]:
    made = [model(name, folder, output=output) for output in outputs]
    geometry = made[0].contract.geometry
    return {
        "network": name,
        "stride": geometry.y.stride,
        "halo": f"{geometry.y.before} + {geometry.y.after}",
        "weights MiB": onnx_file(name, folder).stat().st_size / (1 << 20),
        "strips": made[0].no_strips_reason or "yes",
    }


def _deployed(network: Network, name: str, output: Output) -> DeployedModel:
    making = deploy_in_passes if name == IN_PASSES else deploy
    return making(network, image_dtype="uint8", normalization=normalization(name), output=output)


def _place(folder: Path) -> Path:
    place = folder / "networks"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _file_name(name: str) -> str:
    return name.lower().replace(" ", "-")


def _appear(path: Path, content: bytes) -> None:
    """Write a file that appears complete: another process may write the same."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
