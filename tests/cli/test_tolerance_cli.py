"""``exactile verify --erf`` and ``exactile run --tolerance`` as a user types them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnxruntime as ort
import pytest
import tifffile
from typer.testing import CliRunner

from exactile.cli.main import app
from tests.support.nets import onnx_file

SIZE = 181, 157


def called(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, a slide, a bundle of labels."""
    folder = tmp_path_factory.mktemp("tolerance")
    model = onnx_file(folder, "unet_d2")
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    noise = np.random.default_rng(0).integers(0, 64, (*SIZE, 3))
    waves = 96 + 90 * np.sin(rows[..., None] / 17 + np.arange(3)) * np.cos(columns[..., None] / 23)
    tifffile.imwrite(folder / "slide.tif", (waves + noise).clip(0, 255).astype(np.uint8), photometric="rgb")
    made = called("convert", model, "-o", folder / "unet.bundle", "--scale", 255, "--no-verify")
    assert made.exit_code == 0, made.output
    return model, folder / "slide.tif", folder / "unet.bundle"


@pytest.fixture
def bundle(files, tmp_path):
    return shutil.copytree(files[2], tmp_path / "unet.bundle")


def labels_of(model, slide):
    """One pass of plain ONNX Runtime over the image, extended by reflection and cropped again."""
    pixels = tifffile.imread(slide).astype(np.float32) / np.float32(255)
    pads = [(0, -size % 4) for size in SIZE]
    padded = np.pad(pixels, [*pads, (0, 0)], mode="reflect")
    session = ort.InferenceSession(model)
    (scores,) = session.run(None, {session.get_inputs()[0].name: padded.transpose(2, 0, 1)[None]})
    return scores[0].argmax(0)[: SIZE[0], : SIZE[1]]


def summary_of(*arguments):
    done = called("run", *arguments, "--json", "--no-progress")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_curve_is_kept_in_the_bundle_and_used_by_run(files, bundle, tmp_path):
    model, slide, _ = files
    done = called("verify", bundle, "--sweep", "--erf", "--image", slide, "--tile", 96, "--zones", 24, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    kept = json.loads((bundle / "error_curve.json").read_text())
    assert told["error_curve"] == kept
    assert (kept["format"], kept["version"], kept["tile"]) == ("exactile.error_curve", 1, [96, 96])
    assert [(one["name"], one["size"]) for one in kept["images"]] == [("slide.tif", list(SIZE))]
    assert [point["halo_px"] for point in kept["points"]] == [0, 4, 8, 12, 16, 20, 24]
    shares = [point["labels"] for point in kept["points"]]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1] == 0
    assert {point["scores"] for point in kept["points"]} == {None}
    assert "7 halos to 24 pixels, on slide.tif" in called("info", bundle).stdout
    allowed = 2 * shares[2]
    summary = summary_of(bundle, slide, "-o", tmp_path / "a.tif", "--tolerance", f"labels:{allowed}", "--tile", 96)
    found = summary["tolerance"]
    assert summary["exact"] is False
    assert 0 < found["halo_px"] < 24
    assert "the bundle's error curve" in found["source"]
    exact = labels_of(model, slide)
    share = np.mean(tifffile.imread(tmp_path / "a.tif") != exact)
    assert 0 < share <= 2 * allowed
    assert found["found"] <= allowed


def test_too_small_a_tolerance_gives_the_exact_labels(files, tmp_path):
    model, slide, bundle = files
    summary = summary_of(bundle, slide, "-o", tmp_path / "a.tif", "--tolerance", "labels:1e-9", "--tile", 96)
    assert summary["exact"] is True
    assert summary["tolerance"]["reason"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), labels_of(model, slide))


def test_the_summary_says_that_the_result_is_not_exact(files, tmp_path):
    _, slide, bundle = files
    done = called("run", bundle, slide, "-o", tmp_path / "a.tif", "--tolerance", "labels:0.2", "--tile", 96)
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    assert "exact no: halo" in text
    assert "with a tolerance of labels:0.2" in text
    plain = called("run", bundle, slide, "-o", tmp_path / "b.tif", "--tile", 96, "--json")
    assert json.loads(plain.stdout)["exact"] is True
    assert json.loads(plain.stdout)["tolerance"] is None


def test_of_many_images_each_line_says_what_is_not_exact(files, tmp_path):
    _, slide, bundle = files
    (tmp_path / "slides").mkdir()
    shutil.copy(slide, tmp_path / "slides" / "a.tif")
    shutil.copy(slide, tmp_path / "slides" / "b.tif")
    done = called("run", bundle, tmp_path / "slides", "-o", tmp_path / "out", "--tolerance", "labels:0.2", "--tile", 96)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if "Mpx/s" in line]
    assert len(lines) == 2
    assert all("not exact: error" in line for line in lines)


def test_an_onnx_file_has_both_curves_on_stdout(files):
    model, slide, _ = files
    done = called("verify", model, "--erf", "--image", slide, "--scale", 255, "--json")
    assert done.exit_code == 0, done.output
    points = json.loads(done.stdout)["error_curve"]["points"]
    for name in ("scores", "labels", "far_scores", "far_labels"):
        assert points[0][name] > points[-1][name] == 0


def test_a_damaged_curve_or_that_of_another_model_is_refused_and_can_be_measured_again(files, bundle, tmp_path):
    _, slide, _ = files
    measure = ("verify", bundle, "--erf", "--image", slide, "--zones", 2)
    assert called(*measure).exit_code == 0
    path = bundle / "error_curve.json"
    good = json.loads(path.read_text())
    for name, content in (
        ("damaged", "{"),
        ("damaged", json.dumps({**good, "version": 2})),
        ("do not rise", json.dumps({**good, "points": good["points"][::-1]})),
        ("another model", json.dumps({**good, "belongs_to": "0" * 64})),
    ):
        path.write_text(content)
        done = called("run", bundle, slide, "-o", tmp_path / "a.tif")
        assert done.exit_code == 2
        assert name in " ".join(done.output.split())
        assert "verify" in done.output
    assert called(*measure).exit_code == 0
    assert json.loads(path.read_text()) == good


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "BUNDLE"), "give the ONNX file"),
        (("verify", "BUNDLE", "--erf"), "give --image, once for each"),
        (("verify", "MODEL", "--erf"), "give --image, once for each"),
        (("verify", "BUNDLE", "--erf", "--image", "SLIDE", "--scale", "255"), "--scale"),
        (("verify", "MODEL", "--image", "SLIDE", "--image", "SLIDE"), "several are for --erf"),
        (("run", "BUNDLE", "SLIDE", "-o", "OUT", "--tolerance", "1e-4"), "labels:1e-5"),
        (("run", "BUNDLE", "SLIDE", "-o", "OUT", "--tolerance", "much"), "--tolerance takes a share"),
        (("run", "BUNDLE", "SLIDE", "-o", "OUT", "--tolerance", "labels:0.1", "--plan", "strip"), "is exact"),
        (("run", "BUNDLE", "SLIDE", "-o", "OUT", "--tolerance", "labels:0.1", "--border", "edge"), "--border model"),
    ],
)
def test_what_cannot_be_is_an_error_with_a_way_out(files, tmp_path, arguments, message):
    names = {"MODEL": files[0], "SLIDE": files[1], "BUNDLE": files[2], "OUT": tmp_path / "out.tif"}
    done = called(*(names.get(one, one) for one in arguments))
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "out.tif").exists()
