"""What TensorRT measured in earlier builds is kept in a file, and used again where it fits."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exactile.errors import OptionError
from exactile_converters.tensorrt_engine import timing_cache
from exactile_converters.tensorrt_engine.engines import build_engines
from exactile_converters.tensorrt_engine.plan import load_library
from tests.support.rtx_builds import Told, settings, unet_bundle

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return unet_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def bundle(made, tmp_path):
    """A U-Net's bundle to put engines beside."""
    return Path(shutil.copytree(made, tmp_path / "unet.bundle"))


def test_rtx_says_that_it_keeps_no_timings(bundle, tmp_path):
    told = Told()
    build_engines(bundle, settings(timing_cache=tmp_path / "timings"), watcher=told)
    assert "measures nothing when it builds" in told.notes[0]
    assert not (tmp_path / "timings").exists()


BUILD_AS_TENSORRT = r"""
import pathlib, sys, types, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a timing cache in TensorRT-RTX
import tensorrt_rtx
sys.modules["tensorrt"] = tensorrt_rtx
from exactile_converters.tensorrt_engine import capability
from exactile_converters.tensorrt_engine.engines import EngineSettings, build_engines
from exactile_converters.tensorrt_engine.monitor import SilentWatcher

gpu = types.SimpleNamespace(compute_capability=(8, 6))
capability.open_driver = lambda: types.SimpleNamespace(devices=lambda: (gpu,))

class Told(SilentWatcher):
    def note(self, text):
        print("note", text)

cache = pathlib.Path(sys.argv[2])
settings = EngineSettings(backend="tensorrt", tile=(64, 64), precision="fp16", timing_cache=cache, rebuild=True)
for outcome in build_engines(sys.argv[1], settings, watcher=Told()):
    print(outcome.state, outcome.engine.plan.name)
"""


def test_the_way_of_tensorrt_with_a_timing_cache_on_a_stand_in(bundle, tmp_path):
    """TensorRT-RTX under TensorRT's name: the calls are those of TensorRT, with a timing cache."""
    cache = tmp_path / "timings"

    def build() -> str:
        arguments = [sys.executable, "-c", BUILD_AS_TENSORRT, bundle, cache]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout

    said = build()
    assert said.startswith("built tile-64x64-fp16-sm86-trt1.")
    assert cache.stat().st_size > 100
    cache.write_bytes(b"of another version")
    said = build()
    assert "note the timing cache" in said
    assert "cannot be used, a new one is begun: " in said
    assert "replaced tile" in said
    assert cache.read_bytes() != b"of another version"


class FakeConfig:
    """A timing cache that fits, of which nothing is logged."""

    def __init__(self, *, fits: bool) -> None:
        self.fits, self.set = fits, []

    def create_timing_cache(self, data: bytes) -> bytes:
        return data or b"empty"

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        if cache != b"empty" and not self.fits:
            return False
        self.set.append(cache)
        return True


@pytest.mark.parametrize("fits", [True, False])
def test_a_timing_cache_that_fits_is_used(tmp_path, fits):
    (tmp_path / "timings").write_bytes(b"measured")
    config, notes = FakeConfig(fits=fits), []
    timing_cache.use_timing_cache(load_library("tensorrt-rtx"), config, tmp_path / "timings", notes.append)
    assert config.set == [b"measured" if fits else b"empty"]
    assert len(notes) == (0 if fits else 1)


def test_a_timing_cache_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(OptionError, match="cannot be read: Is a directory"):
        timing_cache.use_timing_cache(load_library("tensorrt-rtx"), FakeConfig(fits=True), tmp_path, print)
