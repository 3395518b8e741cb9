"""``exactile run`` as a user types it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import onnx
import pytest
import tifffile

from exactile.cli.commands import Commands
from exactile.cli.run import PANELS
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.command import exactile, run_json
from tests.support.nets import onnx_bytes, onnx_file
from tests.support.oracle import whole_pass

NAME = "unet_d2"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return onnx_file(tmp_path_factory.mktemp("models"), NAME)


@pytest.fixture(scope="module")
def image():
    rows, columns = np.mgrid[0:301, 0:277]
    noise = np.random.default_rng(0).integers(0, 64, (301, 277, 3))
    waves = 96 + 90 * np.sin(rows[..., None] / 17 + np.arange(3)) * np.cos(columns[..., None] / 23)
    return (waves + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def slide(tmp_path_factory, image):
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    tifffile.imwrite(path, image, tile=(64, 64), compression="zlib", photometric="rgb")
    return path


def test_options_are_in_panels_and_the_most_used_come_first():
    """Every name that a panel lists is an option; short forms say the same as long ones."""
    command = Commands().get_command(None, "run")
    panels = [getattr(option, "rich_help_panel", None) for option in command.params]
    assert list(dict.fromkeys(panels)) == [None, *PANELS]
    names = [name for options in PANELS.values() for name in options]
    assert len(names) == len(set(names)) == sum(panel is not None for panel in panels)
    told = exactile("run", "--help-all").stdout
    assert [told.index(f" {panel} ─") for panel in PANELS] == sorted(told.index(f" {panel} ─") for panel in PANELS)
    options = {option.name: option.opts for option in command.params}
    short = {"target": "-o", "memory": "-m", "plan": "-p", "device": "-d", "overwrite": "-f"}
    assert all(short[name] in options[name] for name in short)


def test_help_fits_two_screens_and_names_every_option(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    told = exactile("run", "--help").stdout
    assert len(told.splitlines()) <= 100
    words = told.replace("│", " ").split()
    shown = [option.opts[0] for option in Commands().get_command(None, "run").params if option.opts[0].startswith("-")]
    assert len(shown) > 50
    assert [name for name in shown if name not in words] == []
    assert "exactile run --help-all" in told
    every = exactile("run", "--help-all").stdout
    assert "Microns per pixel" in every
    assert "Microns per pixel" not in told


def reference(image, border="model", **normalization):
    model = onnx_bytes(NAME)
    geometry = prepare_network(onnx.load_from_string(model), name=NAME).trace().geometry
    return whole_pass(model, image, geometry, border, **normalization)


def test_a_tiff_becomes_a_label_tiff_equal_to_one_whole_pass(model, slide, image, tmp_path):
    target = tmp_path / "labels.tif"
    options = ("--scale", 255, "--mean", "0.5,0.4,0.6", "--std", 0.25, "--tile", "96x128")
    summary = run_json(model, slide, "-o", target, *options)
    expected = reference(image, scale=255, mean=np.array([0.5, 0.4, 0.6]), std=0.25).argmax(0)
    labels = tifffile.imread(target)
    assert labels.dtype == np.uint8
    assert np.count_nonzero(labels != expected) == 0
    assert summary["plan"] == "tile"
    assert summary["tile"] == [96, 128]
    assert summary["wanted_pixels"] == 301 * 277
    assert summary["computed_pixels"] == summary["tiles"] * 96 * 128
    assert summary["padded_size"] == [304, 280]
    assert set(summary["seconds"]) == {"total", "measure", "open", "read", "infer", "write"}
    assert summary["peak_memory_bytes"] > 0
    assert summary["chunks_decoded"] == summary["chunks_stored"] == 5 * 5


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".npy"])
def test_raw_output_goes_to_every_format(model, slide, image, tmp_path, suffix):
    target = tmp_path / f"raw{suffix}"
    run_json(model, slide, "-o", target, "--output", "raw", "--scale", 255, "--tile", 96)
    raw = np.load(target) if suffix == ".npy" else tifffile.imread(target)
    expected = reference(image, scale=255)
    assert raw.shape == expected.shape
    assert raw.dtype == np.float32
    assert np.abs(raw - expected).max() < 1e-4


@pytest.mark.parametrize("border", ["reflect", "edge", "constant"])
def test_borders(model, slide, image, tmp_path, border):
    target = tmp_path / "raw.npy"
    run_json(model, slide, "-o", target, "--output", "raw", "--scale", 255, "--tile", 96, "--border", border)
    assert np.abs(np.load(target) - reference(image, border, scale=255)).max() < 1e-4


def test_npy_in_channel_first_order_with_chosen_channels(model, image, tmp_path):
    source, target = tmp_path / "image.npy", tmp_path / "labels.npy"
    np.save(source, np.concatenate([image[..., :1], image], axis=2).transpose(2, 0, 1).astype(np.float32))
    run_json(model, source, "-o", target, "--axes", "CYX", "--channels", "1,2,3", "--scale", 255, "--tile", 96)
    assert np.array_equal(np.load(target), reference(image, scale=255).argmax(0))


def test_without_json_a_summary_for_people_says_what_was_padded(model, slide, tmp_path):
    done = exactile("run", model, slide, "-o", tmp_path / "labels.tif")
    assert done.returncode == 0, done.stderr
    assert "to 304 x 280 pixels (reflect)" in done.stdout
    assert "whole: 1 tile(s)" in done.stdout
    assert done.stderr == ""


def test_a_small_budget_gives_small_tiles_or_strips_and_is_kept(model, tmp_path):
    """The same labels with a quarter of the memory, and less of it used."""
    image = np.random.default_rng(1).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    source = tmp_path / "image.npy"
    np.save(source, image)
    roomy = run_json(model, source, "-o", tmp_path / "a.npy", "--memory", "1500MiB", "--plan", "whole")
    assert roomy["plan"] == "whole"
    assert roomy["peak_memory_bytes"] < 1500 << 20
    for plan in ("tile", "strip"):
        target = tmp_path / f"{plan}.npy"
        tight = run_json(model, source, "-o", target, "--memory", "300MiB", "--plan", plan)
        assert tight["plan"] == plan
        assert tight["peak_memory_bytes"] < 300 << 20
        assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(target))


def test_an_existing_output_is_kept_unless_told(model, slide, tmp_path):
    target = tmp_path / "labels.tif"
    target.write_bytes(b"precious")
    refused = exactile("run", model, slide, "-o", target)
    assert refused.returncode >= 2
    assert "--overwrite" in refused.stderr
    assert target.read_bytes() == b"precious"
    run_json(model, slide, "-o", target, "--overwrite")
    assert tifffile.imread(target).shape == (301, 277)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "labels.tif"), (signal.SIGTERM, "labels.npy")])
def test_stopping_keeps_what_is_done_or_leaves_nothing(model, tmp_path, number, name):
    """Ctrl-C in the middle of a run: a message, status 130, no output; a .tif can be resumed."""
    source = tmp_path / "image.npy"
    np.save(source, np.zeros((4000, 4000, 3), np.uint8))
    target = tmp_path / "out" / name
    target.parent.mkdir()
    command = [sys.executable, "-m", "exactile", "run", str(model), str(source), "-o", str(target), "--tile", "64"]
    # A process started in the background of a shell would inherit that Ctrl-C is ignored.
    heed = partial(signal.signal, number, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)  # noqa: PLW1509
    deadline = time.monotonic() + 60
    while not list(target.parent.iterdir()) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in messages
    assert "Traceback" not in messages
    assert not target.exists()
    left = sorted(path.name for path in target.parent.iterdir())
    assert left == ([".labels.tif.journal", ".labels.tif.part"] if name == "labels.tif" else [])
    assert ("--resume" in messages) == bool(left)
