"""What importing and running the runtime may cost."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from exactile.cli.commands import NAMES
from exactile_converters.convert import convert
from tests.support.command import within
from tests.support.nets import onnx_file

HEAVY = {
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "openvino",
    "dask",
    "torch",
    "msgspec",
    "tifffile",
    "imagecodecs",
    "typer",
    "rich",
    "psutil",
    "skimage",
    "matplotlib",
    "zarr",
    "fsspec",
    "openslide",
    "wsidicom",
    "pydicom",
    "pycuda",
    "cuda",
    "tensorrt",
    "tensorrt_rtx",
}


def test_importing_the_package_costs_numpy_and_the_standard_library():
    code = "import sys, exactile; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_running_a_model_needs_neither_onnx_nor_torch():
    code = (
        "import sys, exactile; exactile.open_bundle, exactile.Session, exactile.open_source, exactile.open_sink;"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnx", "onnx_ir", "torch"} & set(done.stdout.split())


def test_a_run_of_a_bundle_imports_nothing_of_other_commands_or_of_gpus(tmp_path):
    """Each module costs time before the first pixel."""
    convert(onnx_file(tmp_path, "unet_d1"), tmp_path / "b")
    np.save(tmp_path / "image.npy", np.zeros((60, 60, 1), np.uint8))
    options = ["run", *(str(tmp_path / name) for name in ("b", "image.npy")), "-o", str(tmp_path / "labels.npy")]
    code = (
        "import sys; from exactile.cli.main import app;"
        f"app({[*options, '--device', 'cpu']!r}, standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert "exactile.cli.run" in imported
    others = {f"exactile.cli.{name}" for name in NAMES if name != "run"}
    of_gpus = {"exactile.engines.families", "exactile.processors.gpu", "pycuda", "cuda", "tensorrt", "tensorrt_rtx"}
    frameworks = {"exactile_converters", "onnx", "onnx_ir", "torch", "matplotlib", "zarr", "openslide", "asyncio"}
    assert not (others | of_gpus | frameworks) & imported


def test_commands_that_were_not_imported_are_listed_and_known():
    told = within("--help").stdout
    places = [told.index(f"│ {name} ") for name in NAMES]
    assert places == sorted(places)
    assert "Check this machine" in told
    wrong = within("vrify")
    assert wrong.returncode == 2
    assert "No such command 'vrify'. Did you mean 'verify'?" in wrong.stderr
