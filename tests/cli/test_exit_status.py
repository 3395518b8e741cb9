"""Exit statuses: one list in code, help and docs, and a command that ends with each."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import tifffile

from exactile.cli.exit_status import MEANINGS, epilog
from exactile.errors import ExactileError
from tests.support.command import exactile, forked, within
from tests.support.folders import ROOT
from tests.support.nets import onnx_file

RUN = ("run", "unet.onnx", "slide.tif", "-o", "labels.tif")
CASES = {
    0: ("--version",),
    1: ("info", "complex.tif"),
    2: ("run", "unet.onnx", "nowhere.tif", "-o", "labels.tif"),
    3: (*RUN, "--trace", "nowhere/trace.json"),
    4: (*RUN, "--device", "cuda:63"),
}
IN_THEIR_OWN_TESTS = (70, 130)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statuses")
    onnx_file(folder, "unet_d2").rename(folder / "unet.onnx")
    tifffile.imwrite(folder / "slide.tif", np.zeros((100, 80, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(folder / "complex.tif", np.zeros((20, 30), np.complex64))
    return folder


@pytest.mark.parametrize("status", CASES)
def test_a_command_ends_with_each(place, status):
    done = forked(*CASES[status], cwd=place)
    assert done.returncode == status, done.stderr
    assert not (place / "labels.tif").exists()


def test_a_bug_has_a_status_of_its_own(place, tmp_path, monkeypatch):
    """An installed package that fails as nobody expects stands in for the bug."""
    (tmp_path / "tifffile.py").write_text("raise ZeroDivisionError('planted')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    done = exactile(*RUN, cwd=place)
    assert done.returncode == 70, done.stderr
    assert "internal error: ZeroDivisionError: planted" in done.stderr
    assert not (place / "labels.tif").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_has_a_status_of_its_own(place, tmp_path, number):
    np.save(tmp_path / "image.npy", np.zeros((4000, 4000, 3), np.uint8))
    heed = partial(signal.signal, number, signal.SIG_DFL)
    words = ["run", str(place / "unet.onnx"), "image.npy", "-o", "labels.tif", "--tile", "64", "--no-keep"]
    process = subprocess.Popen(
        [sys.executable, "-m", "exactile", *words],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        preexec_fn=heed,  # noqa: PLW1509
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) == 1 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130


def test_every_status_is_tried():
    assert sorted(MEANINGS) == sorted([*CASES, *IN_THEIR_OWN_TESTS])


def errors(kind: type[ExactileError] = ExactileError) -> list[type[ExactileError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in errors(below))]


def test_every_error_has_a_status_of_the_list():
    assert {kind.exit_status for kind in errors()} == {2, 3, 4, 130} < set(MEANINGS)


def test_the_help_and_the_usage_list_the_same():
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", (ROOT / "docs" / "usage.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(status): meaning for status, meaning in rows} == MEANINGS
    shown = " ".join(within("--help").stdout.split())
    assert epilog().replace("`", "").replace("**", "") in shown
