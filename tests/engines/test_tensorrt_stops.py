"""A build that is stopped, or whose disk is full, leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import exactile
from exactile.errors import CancelledError, SinkError
from exactile_converters.tensorrt_engine import storage
from exactile_converters.tensorrt_engine.engines import build_engines
from exactile_converters.tensorrt_engine.monitor import Cancellation, Phases
from tests.support.rtx_builds import Told, settings, unet_bundle

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return unet_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def bundle(made, tmp_path):
    """A U-Net's bundle to put engines beside."""
    return Path(shutil.copytree(made, tmp_path / "unet.bundle"))


class StopsAt(Told):
    """Calls ``stop`` when a build has made some progress."""

    def __init__(self, stop) -> None:
        super().__init__()
        self._stop, self._stopped = stop, False

    def progress(self, share: float) -> None:
        super().progress(share)
        if share > 0.1 and not self._stopped:
            self._stopped = True
            self._stop()


def test_a_cancelled_build_leaves_nothing(bundle):
    cancellation = Cancellation()
    told = StopsAt(cancellation.cancel)
    with pytest.raises(CancelledError, match="the build was stopped; no engine was written"):
        build_engines(bundle, settings(), watcher=told, cancellation=cancellation)
    assert told.shares[-1] < 1
    assert not (bundle / "engines").exists()
    with pytest.raises(CancelledError):
        build_engines(bundle, settings(), cancellation=cancellation)


def test_ctrl_c_stops_a_build_and_leaves_nothing(bundle):
    told = StopsAt(lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under nohup and by cron
    try:
        with pytest.raises(KeyboardInterrupt):
            build_engines(bundle, settings(), watcher=told)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (bundle / "engines").exists()


def test_a_watcher_that_fails_stops_the_build(bundle):
    def fail():
        raise RuntimeError("the terminal is gone")

    with pytest.raises(CancelledError):
        build_engines(bundle, settings(), watcher=StopsAt(fail))


def test_phases_within_phases_become_one_share_that_never_falls():
    shares = []
    phases = Phases(shares.append)
    phases.start("all", None, 2)
    phases.start("inner", "all", 4)
    for step in range(4):
        phases.step("inner", step)
    phases.finish("inner")
    phases.step("all", 0)
    phases.start("inner", "all", 2)
    phases.step("inner", 0)
    phases.step("nobody", 0)
    phases.finish("inner")
    phases.finish("all")
    phases.finish("all")
    assert shares == sorted(shares)
    assert shares[:4] == [0.125, 0.25, 0.375, 0.5]
    assert shares[-1] == 1.0


BUILD_LIMITED = """
import resource, sys
from exactile.errors import SinkError
from exactile_converters.tensorrt_engine.engines import EngineSettings, build_engines
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    build_engines(sys.argv[1], EngineSettings(backend="tensorrt-rtx", compute_capabilities=((8, 6),), tile=(64, 64)))
except SinkError as error:
    print(error)
"""


def test_a_full_disk_is_an_error_and_leaves_nothing(bundle):
    """No file may grow beyond 100 kB: what a full disk looks like."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD_LIMITED, bundle, "100000"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("cannot write ")
    assert "File too large" in done.stdout
    assert list((bundle / "engines").iterdir()) == []
    assert exactile.open_bundle(bundle).model.engines_refused == ()


def test_a_folder_that_cannot_be_written_is_an_error(bundle, tmp_path):
    (bundle / "engines").write_text("in the way")
    with pytest.raises(SinkError, match="cannot make the folder"):
        build_engines(bundle, settings())
    (bundle / "engines").unlink()
    (tmp_path / "elsewhere").mkdir()
    (bundle / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SinkError, match="a link that leads out of the bundle"):
        build_engines(bundle, settings())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_half_written_file_is_never_seen(tmp_path, monkeypatch):
    path = tmp_path / "x.plan"
    path.write_bytes(b"before")

    def fail(_descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(SinkError, match=r"cannot write .*x\.plan \(5 bytes\): No space left on device"):
        storage.write_whole(path, memoryview(b"after"))
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.plan"]
