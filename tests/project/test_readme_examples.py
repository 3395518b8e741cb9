"""What README.md and docs/usage.md say to type is typed here, in their order, and leads to what they say."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest
import tifffile
import zarr

from tests.support import whole_nets
from tests.support.command import exactile as exactile_command
from tests.support.documents import code
from tests.support.folders import ROOT

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "usage.md")
MODEL = ROOT / "models" / "stain_unet.onnx"
NEEDS_A_GPU = ("--engine tensorrt", "--device cuda")
STAND_INS = {
    "https://host/embryo.ome.zarr": "embryo.ome.zarr",
    "slide.mrxs": "scanned.ome.tif",
    "tcp://scheduler:8786": "local",
}
"""What a test does not have: a web server, a scanner's slide, a cluster."""

FACTORY = """
import torch

def build_unet():
    torch.manual_seed(0)
    first, last = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1)
    return torch.nn.Sequential(first, torch.nn.ReLU(), last)
"""


def commands() -> list[str]:
    """Those of the README, then those of the usage; what stands in both is typed once."""
    lines = [
        line.partition("  #")[0].strip()
        for document in DOCUMENTS
        for block in code(document, "sh")
        for line in block.splitlines()
        if line.startswith("exactile ")
    ]
    return [line for line in dict.fromkeys(lines) if not any(words in line for words in NEEDS_A_GPU)]


def python(call: str) -> str:
    """The one block of all documents with ``call``."""
    (found,) = (block for document in DOCUMENTS for block in code(document, "python") if call in block)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all files that the examples name."""
    import torch

    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(MODEL, folder / "unet.onnx")
    (folder / "norms.onnx").write_bytes(whole_nets.instance_norm())
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8), np.ones((14, 18, 1), np.uint8))
    tifffile.imwrite(folder / "slide.tif", picture, tile=(128, 128), photometric="rgb")
    for day in ("monday", "tuesday"):
        tifffile.imwrite(folder / f"{day}.tif", picture, photometric="rgb")
    (folder / "slides").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(folder / "slides" / f"{name}.tif", picture[:160, :176], photometric="rgb")
    np.save(folder / "image.npy", np.tile(picture, (2, 2, 1)))
    (settings,) = code(ROOT / "docs" / "usage.md", "toml")
    (folder / "slides.toml").write_text(settings)
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(folder / "scanned.ome.tif") as tiff:
        tiff.write(picture, subifds=1, tile=(128, 128), photometric="rgb", metadata=metadata)
        tiff.write(picture[::2, ::2], subfiletype=1, tile=(128, 128), photometric="rgb")
    group = zarr.open_group(folder / "embryo.ome.zarr", mode="w", zarr_format=3)
    stack = group.create_array("0", shape=(5, 4, 14, 96, 112), chunks=(1, 1, 1, 96, 112), dtype="u1")
    stack[3, :, 12] = picture[:96, :112].transpose(2, 0, 1)[[0, 1, 2, 0]]
    axes = [{"name": name} for name in "tczyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1] * 5}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    (folder / "mypackage").mkdir()
    (folder / "mypackage" / "__init__.py").touch()
    (folder / "mypackage" / "models.py").write_text(FACTORY)
    scope: dict = {}
    exec(FACTORY, scope)
    torch.save(scope["build_unet"]().state_dict(), folder / "best.pth")
    return folder


def test_every_command_does_what_it_says(place):
    """All that need no GPU end with status 0, and their outputs are there."""
    assert len(commands()) >= 19
    for line in commands():
        command, _, file = line.partition(" > ")
        words = [STAND_INS.get(word, word) for word in shlex.split(command)[1:]]
        target = place / words[words.index("-o") + 1] if "-o" in words else None
        again = ["--overwrite"] if words[0] == "run" and target is not None and target.is_file() else []
        done = exactile_command(*words, *again, cwd=place)
        assert done.returncode == 0, (line, done.stderr)
        if file:
            (place / file).write_text(done.stdout)
        for option in ("-o", "--plot", "--report"):
            if option in words:
                assert (place / words[words.index(option) + 1]).exists(), line


STREAMED = """
import numpy as np, tifffile
image, kept = tifffile.imread("slide.tif"), []
camera = np.array_split(image, 9)
{stream}
np.save("streamed.npy", np.concatenate(kept))
"""


def test_the_session_in_python_gives_the_labels_of_one_pass(place):
    """The examples in Python, one call, a session, and streaming: every row comes out of the loops."""
    if not (place / "unet.bundle").exists():
        convert = next(line for line in commands() if "--torch" in line)
        assert exactile_command(*shlex.split(convert)[1:], cwd=place).returncode == 0
    call, first, stream = (python(name) for name in ("exactile.segment(", "session.segment(", ".stream("))
    image = tifffile.imread(place / "slide.tif")
    sizes = {
        "20000": str(image.shape[1]),
        "60000": str(len(image)),
        "...": "kept.append(labels)",
        "labels.tif": "s.tif",
    }
    for said, here in sizes.items():
        stream = stream.replace(said, here)
    for name in ("labels.tif", "s.tif", "streamed.npy"):
        (place / name).unlink(missing_ok=True)
    # A process of its own: the examples give the whole process a budget, and the tests' may have filled it.
    script = f"import numpy\n{call}\nnumpy.save('called.npy', labels)\n" + first + STREAMED.format(stream=stream)
    done = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in ("whole", "tile", "strip")
    session = ort.InferenceSession(place / "unet.bundle" / "graph.onnx")
    (wanted,) = session.run(None, {session.get_inputs()[0].name: image})
    assert np.array_equal(tifffile.imread(place / "labels.tif"), wanted)
    called = exactile_command("run", "unet.onnx", "slide.tif", "-o", "called.tif", "--scale", 255, cwd=place)
    assert called.returncode == 0, called.stderr
    assert np.array_equal(np.load(place / "called.npy"), tifffile.imread(place / "called.tif"))
    assert np.array_equal(np.load(place / "streamed.npy"), wanted)
    assert np.array_equal(tifffile.imread(place / "s.tif"), wanted)
