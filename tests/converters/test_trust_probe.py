"""Networks that no rule proves local: what runs show of them, and tiles that trust it, never by default."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from exactile import Session, open_bundle, segment
from exactile.errors import NotTileableError, OptionError, PlanError, VerificationError
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.convert import convert
from exactile_converters.inspection import inspect_network
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.probed.deploy import trusted
from exactile_converters.probed.locality import find_locality
from exactile_converters.probed.refusal import NotLocalError, TooSlowError
from tests.placed.test_placed_operators import image_of, one_pass
from tests.support import unproven_nets
from tests.support.command import within


def network_of(model: bytes) -> Network:
    return prepare_network(onnx.load_from_string(model), name="unproven")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("unproven") / "folded.onnx"
    path.write_bytes(unproven_nets.folded())
    return path


def test_runs_find_the_halo_and_the_period():
    """A kernel of 5 by stride 2, and one of 3: 2 and 1 pixels, and one more by the place in the block."""
    found = find_locality(network_of(unproven_nets.folded()))
    for axis in (found.y, found.x):
        assert (axis.period, axis.before, axis.after) == (2, 4, 3)
        assert dict(axis.constants) == {0: 0, 1: 0}
        assert axis.geometry.before == 4 + axis.margin
        assert axis.margin >= 8


def test_what_sees_the_whole_image_is_not_local():
    with pytest.raises(NotLocalError, match="pixels more than 384 away change the result along y"):
        find_locality(network_of(unproven_nets.summed()))


def test_the_time_is_bounded():
    with pytest.raises(TooSlowError, match="not enough to decide"):
        find_locality(network_of(unproven_nets.folded()), seconds=0.0)


def test_the_edges_are_looked_at():
    """In the middle of an image the network is local, and at its edges rows from the other end come in."""
    with pytest.raises(NotLocalError, match="away change the result at an edge of the image, along y"):
        find_locality(network_of(unproven_nets.rolled()))


def test_a_wrong_trust_is_refused():
    """Pixels far away change nothing, but the size of a tile does: runs at one size do not show it."""
    network = network_of(unproven_nets.sized())
    assert find_locality(network).reach <= 4
    with pytest.raises(VerificationError, match=r"finds nothing to trust: tiles .* do not equal one pass") as caught:
        trusted(network)
    assert "because of Col2Im" in str(caught.value)


def test_a_network_that_rules_prove_needs_no_trust():
    with pytest.raises(OptionError, match="leave --trust-probe out"):
        trusted(network_of(unproven_nets.plain()))


@pytest.mark.parametrize("size", [(150, 122), (151, 121)])
def test_tiles_that_trust_runs_equal_one_pass(model_file, size, capfd):
    image = image_of(*size)
    with pytest.raises((NotTileableError, PlanError)):
        segment(model_file, image, output="raw", plan="tile", tile=(64, 64), progress=False)
    found = segment(model_file, image, output="raw", plan="tile", tile=(64, 64), trust_probe=True, progress=False)
    assert np.array_equal(found, one_pass(unproven_nets.folded(), image))
    assert "warning: folded.onnx is not proven to run exactly in tiles" in capfd.readouterr().err


def test_a_bundle_says_that_it_is_not_proven(model_file, tmp_path):
    with pytest.raises(NotTileableError, match="--trust-probe"):
        convert(model_file, tmp_path / "refused.bundle", output="raw")
    convert(model_file, tmp_path / "trusted.bundle", output="raw", trust_probe=True)
    contract = json.loads((tmp_path / "trusted.bundle" / "contract.json").read_text())
    assert contract["verification"]["by"] == "probe"
    assert "no rule proves the network local (Col2Im" in contract["verification"]["note"]
    image, sink = image_of(143, 130), ArraySink()
    session = Session(open_bundle(tmp_path / "trusted.bundle").model)
    summary = session.segment(ArraySource(image), sink, plan="tile", tile=(64, 64))
    assert np.array_equal(sink.result, one_pass(unproven_nets.folded(), image))
    assert summary.verification.by == "probe"
    assert summary.verification.sentence.startswith("not proven, trusted by --trust-probe: ")


def test_runs_may_not_be_left_out(model_file):
    with pytest.raises(OptionError, match="--trust-probe relies on runs"):
        segment(model_file, image_of(64, 64), trust_probe=True, verify=False, progress=False)


def test_inspect_tells_what_runs_show(model_file):
    shown = within("inspect", model_file, "--json")
    probe = json.loads(shown.stdout)["probe"]
    assert (probe["local"], probe["proven"]) == (True, False)
    assert probe["halo"] == {"top": 4, "bottom": 3, "left": 4, "right": 3}
    assert probe["period"] == {"y": 2, "x": 2}


def test_inspect_says_why_runs_show_nothing():
    found = inspect_network(network_of(unproven_nets.summed()))
    assert found.probed is None
    assert found.not_probed_reason.startswith("runs do not show it to be local, either: pixels more than 384 away")
    assert inspect_network(network_of(unproven_nets.plain())).not_probed_reason == ""


def test_a_large_network_is_not_run_without_being_asked(monkeypatch):
    monkeypatch.setattr("exactile_converters.inspection.PROBED_MAC_PER_PIXEL", 1)
    found = inspect_network(network_of(unproven_nets.folded()))
    assert found.probed is None
    assert "--trust-probe" in found.not_probed_reason
    assert inspect_network(network_of(unproven_nets.folded()), trust_probe=True).probed is not None
