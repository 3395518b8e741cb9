"""``exactile convert --engine``: engines beside a new bundle, or one that is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import exactile
from tests.support.command import exactile as command
from tests.support.nets import onnx_file
from tests.support.rtx_builds import unet_bundle

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return unet_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def bundle(made, tmp_path):
    """A U-Net's bundle to put engines beside."""
    return Path(shutil.copytree(made, tmp_path / "unet.bundle"))


def test_the_command_builds_beside_a_new_bundle_and_beside_one_that_is_there(tmp_path):
    model, target = onnx_file(tmp_path, "unet_d1"), tmp_path / "unet.bundle"
    rtx = ("--engine", "tensorrt-rtx", "--compute-capability", "8.6,8.9")
    made = command("convert", model, "-o", target, "--tile", "64x96", *rtx, "--workspace", "1GiB")
    assert made.returncode == 0, made.stderr
    said = " ".join(made.stdout.split())
    assert "engine fp32 tile, 64 x 96 pixels, tensorrt-rtx 1." in said
    assert "compute capability 8.6, 8.9" in said
    assert "0 of 6144 labels differ" in said
    more = command("convert", target, *rtx, "--engine-precision", "fp16", "--strip-rows", "16", "--json")
    assert more.returncode == 0, more.stderr
    data = json.loads(more.stdout)
    assert sorted((engine["role"], engine["precision"]) for engine in data["engines"]) == [
        ("body", "fp16"),
        ("first", "fp16"),
        ("last", "fp16"),
        ("tile", "fp16"),
        ("tile", "fp32"),
    ]
    again = command("convert", target, *rtx, "--workspace", "1GiB")
    assert "up to date" in again.stdout
    assert "engine fp16 last strip, 2 to 16 x 4096 pixels" in " ".join(command("info", target).stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("BUNDLE",), "is a bundle already; --engine tensorrt or tensorrt-rtx builds engines for it"),
        (("BUNDLE", "--engine", "tensorrt-rtx", "-o", "other"), "engines are in the bundle's folder"),
        (
            ("BUNDLE", "--engine", "tensorrt-rtx", "--scale", "255", "--classes", "a,b"),
            "--classes, --scale would change",
        ),
        (
            ("BUNDLE", "--engine", "tensorrt-rtx", "--precision", "fp16"),
            "the precision of engines is --engine-precision",
        ),
        (("BUNDLE", "--engine", "tensorrt-rtx", "--compute-capability", "ampere"), "numbers such as 8.6 or 8.6,8.9"),
        (("BUNDLE", "--engine", "tensorrt-rtx", "--workspace", "much"), "--workspace takes an amount such as 2GiB"),
        (("x.onnx", "-o", "y", "--batch", "2", "--strip-rows", "8"), "--batch, --strip-rows: for engines alone; add"),
        (("x.onnx",), "give the path of the bundle: -o BUNDLE"),
        (
            ("x.onnx", "-o", "y", "--engine", "tensorrt-rtx", "--compute-capability", "9.0"),
            "tensorrt-rtx does not run on GPUs of compute capability 9.0",
        ),
    ],
)
def test_options_at_odds_are_refused_before_anything_is_done(bundle, tmp_path, arguments, message):
    arguments = [bundle if argument == "BUNDLE" else argument for argument in arguments]
    done = command("convert", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (bundle / "engines").exists()


def test_a_bundle_whose_engines_failed_is_there(tmp_path):
    model, target = onnx_file(tmp_path, "unet_d1"), tmp_path / "unet.bundle"
    done = command("convert", model, "-o", target, "--engine", "tensorrt-rtx", "--workspace", "1")
    assert done.returncode == 2
    assert "give more with --workspace" in done.stderr
    assert "was written, and can be used" in done.stderr
    assert exactile.open_bundle(target).model.engines == ()
