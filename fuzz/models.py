"""The intact networks and the intact bundle that damage starts from, made once and read by every child."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
NETWORKS = ("unet_d1", "unet_bilinear_d1", "asymmetric", "dilated", "valid", "super_resolution", "low_resolution")
"""Of tests/support/nets.py; beside them the trained network of models/."""

TRAINED = "stain_unet"
WRITTEN_BY_RUNTIME = ("quantised", "fused", "loop")
"""Of tests/support/optimized_models.py: as ONNX Runtime's quantiser and optimiser, and TorchScript, write models."""

BUNDLE = "intact.bundle"


def prepare_networks(folder: Path) -> None:
    """Write every network as ``<name>.onnx`` to ``folder``."""
    from tests.support.nets import onnx_bytes
    from tests.support.optimized_models import written_by_runtime

    for name, model in written_by_runtime(folder).items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    for name in NETWORKS:
        (folder / f"{name}.onnx").write_bytes(onnx_bytes(name))
    (folder / f"{TRAINED}.onnx").write_bytes((ROOT / "models" / f"{TRAINED}.onnx").read_bytes())


def prepare_bundle(folder: Path) -> None:
    """Convert a small network into a bundle in ``folder``."""
    from exactile_converters.convert import convert
    from tests.support.nets import onnx_bytes

    model = folder / "unet_d1.onnx"
    model.write_bytes(onnx_bytes("unet_d1"))
    convert(model, folder / BUNDLE, tile=(64, 64))
