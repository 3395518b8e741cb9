"""``exactile verify`` as a user types it, and the report it writes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import exactile_converters.verify as verifier
from exactile.cli.main import app
from exactile.errors import OptionError
from exactile.geometry import Geometry
from exactile_converters.verify import pictures
from tests.support.command import exactile
from tests.support.nets import onnx_file
from tests.support.whole_nets import attention

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return onnx_file(tmp_path_factory.mktemp("models"), "unet_transpose3_d2")


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (150, 170, 4), dtype=np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", extrasamples=["unassalpha"])
    return path


def called(*arguments: object):
    """In this process, where things can be replaced."""
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


@pytest.fixture
def wrong_claim(monkeypatch):
    """The converter claims a halo that is one stride too small at the bottom."""
    honest = verifier.verify

    def lying(network, **options):
        true = network.trace().geometry
        return honest(network, geometry=Geometry(y=replace(true.y, after=true.y.after - 4), x=true.x), **options)

    monkeypatch.setattr(verifier, "verify", lying)


def test_json_is_one_object_and_all_there_is_on_stdout(model, slide):
    options = ("--image", slide, "--channels", "0,1,2", "--scale", 255, "--mean", "0.5", "--tile", "64x72")
    done = exactile("verify", model, *options, "--sweep", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["holds"] is True
    assert found["stride"] == {"y": 4, "x": 4}
    assert found["halo"] == {"top": 22, "bottom": 26, "left": 22, "right": 26}
    sides = [side for axis in "yx" for side in found["probe"][axis]["sides"]]
    assert {side["side"]: side["measured_px"] for side in sides} == found["halo"]
    assert {side["verdict"] for side in sides} == {"exact"}
    assert found["probe"]["y"]["stride"] == {"claimed_px": 4, "commuting_shifts_px": [4], "verdict": "exact"}
    compared = found["tiled_against_whole"]
    assert (compared["on"], compared["size"], compared["tile"]) == ("image", [150, 170], [64, 72])
    assert compared["different_labels"] == 0
    assert compared["first_different_pixel"] is None
    assert [point["halo_px"] for point in found["sweep"]["halos"]] == [0, 4, 8, 12, 16, 20, 24, 28]
    assert found["sweep"]["halos"][0]["rmse"] > 0
    assert found["sweep"]["halos"][-1]["different_labels"] == 0
    assert [point["offset_px"] for point in found["sweep"]["offsets"]] == [0, 1, 2, 3]
    assert found["made"]["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()


def test_people_read_the_verdict_of_each_side(model):
    done = exactile("verify", model)
    assert done.returncode == 0, done.stderr
    assert re.search(r"top +22 +22 +22 +22 +exact", done.stdout)
    assert re.search(r"bottom +26 +26 +26 +26 +exact", done.stdout)
    assert "0 different labels" in done.stdout
    assert done.stdout.rstrip().endswith("the claim holds")
    assert done.stderr == ""


@pytest.mark.usefixtures("wrong_claim")
def test_a_claim_that_fails_exits_with_1_and_says_where(model):
    done = called(model, "--sweep")
    assert done.exit_code == 1
    assert re.search(r"bottom +22 +26 +26 +26 +TOO SMALL", done.stdout)
    assert "first different pixel" in done.stdout
    assert done.stdout.rstrip().endswith("THE CLAIM FAILS")
    found = json.loads(called(model, "--json").stdout)
    assert found["holds"] is False
    assert found["tiled_against_whole"]["max_abs"] > found["tiled_against_whole"]["tolerance"]


def test_an_untileable_model_is_refused_with_its_obstacles(tmp_path):
    (tmp_path / "attention.onnx").write_bytes(attention())
    done = exactile("verify", tmp_path / "attention.onnx")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "cannot be tiled exactly" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tile", "40"), "too small for the halo"),
        (("--tile", "63"), "not accepted"),
        (("--tile", "x"), "--tile takes"),
        (("--std", "0"), "--std must not be 0"),
        (("--image", "nowhere.tif"), "nowhere.tif"),
        (("--output-name", "heat"), "no output 'heat'"),
    ],
)
def test_bad_input_is_one_message_and_status_2(model, options, words):
    done = called(model, *options)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_the_alpha_channel_of_an_image_is_left_out(model, slide):
    """The image has red, green, blue and alpha, and the network takes three channels."""
    done = called(model, "--image", slide)
    assert done.exit_code == 0, done.stderr


def test_help_has_examples_and_exit_statuses():
    done = exactile("verify", "--help")
    assert "exactile verify unet.onnx" in done.stdout
    assert "1 it fails" in done.stdout


def test_the_report_holds_its_pictures_tables_and_origin(model, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "proof"
    done = exactile("verify", model, "--sweep", "--report", folder, "--seed", 5)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    page = (folder / "index.html").read_text()
    pictures = [base64.b64decode(one) for one in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    assert len(pictures) == 3
    assert all(picture.startswith(PNG) for picture in pictures)
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<td>bottom</td><td>26</td><td>26</td><td>26</td><td>26</td><td>exact</td>" in page
    assert hashlib.sha256(model.read_bytes()).hexdigest() in page
    assert f"exactile verify {model} --sweep --report {folder} --seed 5" in page


@pytest.mark.usefixtures("wrong_claim")
def test_a_report_of_a_failed_claim_is_written_too(model, tmp_path):
    pytest.importorskip("matplotlib")
    done = called(model, "--report", tmp_path / "proof")
    assert done.exit_code == 1
    page = (tmp_path / "proof" / "index.html").read_text()
    assert "TOO SMALL" in page
    assert "fails" in page


def test_a_report_replaces_an_earlier_one_and_nothing_else(model, tmp_path):
    pytest.importorskip("matplotlib")
    folder, precious = tmp_path / "proof", tmp_path / "thesis"
    assert called(model, "--report", folder).exit_code == 0
    first = (folder / "index.html").read_text()
    assert called(model, "--report", folder, "--seed", 1).exit_code == 0
    assert (folder / "index.html").read_text() != first
    precious.mkdir()
    (precious / "index.html").write_text("<p>years of work</p>")
    refused = called(model, "--report", precious)
    assert refused.exit_code == 2
    assert "choose another folder" in refused.stderr
    assert (precious / "index.html").read_text() == "<p>years of work</p>"
    (tmp_path / "file").write_text("x")
    assert called(model, "--report", tmp_path / "file").exit_code == 2


def test_without_matplotlib_a_report_is_refused_before_any_work(model, tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")

    monkeypatch.setattr(pictures, "import_module", missing)
    with pytest.raises(OptionError, match=re.escape("exactile[report]")):
        verifier.check_directory(tmp_path / "proof")
    assert called(model, "--report", tmp_path / "proof").exit_code == 2
    assert not (tmp_path / "proof").exists()


def test_a_large_error_map_keeps_its_thin_seams():
    errors = np.zeros((3001, 2500), np.float32)
    errors[:, 1234] = 1e-3
    errors[2999, 7] = 1
    reduced = pictures._reduced(errors)
    assert max(reduced.shape) <= 1200
    assert reduced.max() == 1
    assert (reduced.max(axis=1) >= np.float32(1e-3)).all()
