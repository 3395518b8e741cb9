"""The examples run as their help says."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import tifffile

from exactile import ArraySink, ArraySource, Session
from exactile_converters.deploy import Normalization, deploy, load_network
from examples.line_camera import MODEL, tissue
from tests.support.folders import ROOT

EXAMPLES = ROOT / "examples"


def test_the_line_camera_writes_the_labels_of_the_whole_image_and_a_plot(tmp_path):
    script = [sys.executable, EXAMPLES / "line_camera.py", "--rows", "301", "--width", "200", "--rate", "500"]
    done = subprocess.run(
        [*map(str, script), "--strip-rows", "32", "--to", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "behind the camera" in done.stdout
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    deployed = deploy(load_network(MODEL), image_dtype="uint8", normalization=Normalization(scale=(255.0,)))
    sink = ArraySink()
    Session(deployed).segment(ArraySource(np.ascontiguousarray(tissue(301, 200))), sink, plan="whole")
    assert np.array_equal(tifffile.imread(tmp_path / "labels.tif"), sink.result)
