"""Pictures through the command line: the labels are those of the same samples in a .npy file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from tests.sources.test_picture import exif, pillow
from tests.support.command import exactile, run_json
from tests.support.nets import onnx_file
from tests.support.pictures import encoded, jpegxl, samples

RGB = np.tile(samples(3), (3, 3, 1))
MODEL = "asymmetric"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, a picture, and the labels of its samples."""
    folder = tmp_path_factory.mktemp("pictures")
    model = onnx_file(folder, MODEL)
    (folder / "a.png").write_bytes(encoded(grey(), "PNG"))
    np.save(folder / "a.npy", grey())
    run_json(model, folder / "a.npy", "-o", folder / "labels.tif", "--scale", 255, "--tile", 96)
    return folder, model, tifffile.imread(folder / "labels.tif")


def grey() -> np.ndarray:
    return RGB[..., 0].copy()


@pytest.mark.parametrize("plan", [["--plan", "whole"], ["--tile", 96], ["--plan", "strip"]])
def test_every_plan_reads_a_picture(place, tmp_path, plan):
    folder, model, labels = place
    summary = run_json(model, folder / "a.png", "-o", tmp_path / "labels.tif", "--scale", 255, *plan)
    assert np.array_equal(tifffile.imread(tmp_path / "labels.tif"), labels)
    assert (summary["chunks_decoded"], summary["chunks_stored"]) == (1, 1)


@pytest.mark.parametrize(("name", "data"), [
    ("a.jpg", encoded(grey(), "JPEG")),
    ("a.bmp", encoded(grey(), "BMP")),
    ("a.jp2", encoded(grey(), "JPEG2000")),
    ("a.jxl", jpegxl(grey(), lossless=True)),
])  # fmt: skip
def test_other_formats_give_the_labels_of_their_samples(place, tmp_path, name, data):
    _, model, _ = place
    (tmp_path / name).write_bytes(data)
    np.save(tmp_path / "samples.npy", grey() if name.endswith("jxl") else pillow(data))
    for image, target in ((name, "found.tif"), ("samples.npy", "expected.tif")):
        run_json(model, tmp_path / image, "-o", tmp_path / target, "--scale", 255, "--tile", 96)
    assert np.array_equal(tifffile.imread(tmp_path / "found.tif"), tifffile.imread(tmp_path / "expected.tif"))


def test_statistics_previews_and_background_work_with_pictures(place, tmp_path):
    _, model, _ = place
    image = grey()
    image[:, :128] = 255
    (tmp_path / "a.png").write_bytes(encoded(image, "PNG"))
    np.save(tmp_path / "a.npy", image)
    options = ["--normalize", "zscore", "--skip-background", "<256", "--tile", 96, "--preview", "--overlay"]
    for name in ("a.png", "a.npy"):
        summary = run_json(model, tmp_path / name, "-o", tmp_path / f"{name}.tif", *options)
        assert summary["skipped_tiles"] > 0
    for part in (".tif", ".tif.preview.png", ".tif.overlay.png"):
        assert (tmp_path / f"a.png{part}").read_bytes() == (tmp_path / f"a.npy{part}").read_bytes()


def test_a_mask_may_be_a_picture(place, tmp_path):
    folder, model, labels = place
    mask = np.zeros((61, 83), np.uint8)
    mask[:, 60:] = 255
    (tmp_path / "mask.png").write_bytes(encoded(mask, "PNG"))
    target = tmp_path / "labels.tif"
    summary = run_json(model, folder / "a.png", "-o", target, "--scale", 255, "--tile", 96,
                       "--skip-background", tmp_path / "mask.png", "--background-label", 7)  # fmt: skip
    assert summary["skipped_tiles"] > 0
    found = tifffile.imread(target)
    assert np.array_equal(found[found != 7], labels[found != 7])


def test_a_folder_of_pictures_with_a_truncated_one(place, tmp_path):
    _, model, labels = place
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    data = encoded(grey(), "PNG")
    (images / "good.png").write_bytes(data)
    (images / "bad.png").write_bytes(data[: len(data) // 2])
    done = exactile("run", model, images, "-o", out, "--scale", 255, "--tile", 96)
    assert done.returncode == 2
    assert "bad.png: this PNG picture cannot be decoded" in done.stderr
    assert np.array_equal(tifffile.imread(out / "good.tif"), labels)


def test_folders_in_a_folder_are_told_and_entered_when_asked_for(place, tmp_path):
    _, model, labels = place
    for name in ("in/a.png", "in/day 1/a.png", "in/day 2/deep/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(grey(), "PNG"))
    (tmp_path / "in" / "notes.txt").write_text("none")
    arguments = ("run", model, tmp_path / "in", "-o", tmp_path / "out", "--scale", 255, "--no-progress")
    done = exactile(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "note: passed over: 2 folders (--recursive enters them), 1 .txt\n"
    done = exactile(*arguments, "--recursive", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "note: passed over: 1 .txt\n"
    for name in ("a.tif", "day 1/a.tif", "day 2/deep/a.tif"):
        assert np.array_equal(tifffile.imread(tmp_path / "out" / name), labels)


def test_a_picture_and_a_tiff_of_one_name_are_refused_before_anything_runs(place, tmp_path):
    _, model, _ = place
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encoded(grey(), "PNG"))
    tifffile.imwrite(tmp_path / "in" / "a.tif", grey())
    done = exactile("run", model, tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode != 0
    assert "would both become" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_filled_picture_is_told_as_damage(place, tmp_path):
    _, model, labels = place
    data = encoded(grey(), "PNG")
    (tmp_path / "bad.png").write_bytes(data[: len(data) // 2])
    summary = run_json(model, tmp_path / "bad.png", "-o", tmp_path / "labels.tif", "--scale", 255,
                       "--on-corrupt", "fill")  # fmt: skip
    assert summary["damaged"]["pixels"] == labels.size


def test_an_orientation_that_is_not_applied_is_said_once(place, tmp_path):
    _, model, _ = place
    (tmp_path / "a.jpg").write_bytes(encoded(grey(), "JPEG", exif=exif(6).tobytes()))
    done = exactile("run", model, tmp_path / "a.jpg", "-o", tmp_path / "labels.tif", "--scale", 255, "--overlay",
                    "--no-progress")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " ".join(done.stdout.split()).count("EXIF orientation 6 is not applied") == 1


def test_a_complete_result_of_a_picture_is_left_by_resume_and_a_changed_picture_is_noticed(place, tmp_path):
    _, model, _ = place
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    (images / "a.png").write_bytes(encoded(grey(), "PNG"))
    arguments = ("run", model, images, "-o", out, "--scale", 255, "--resume", "--json")
    assert exactile(*arguments).returncode == 0
    assert json.loads(exactile(*arguments).stdout)[0]["complete"]
    (images / "a.png").write_bytes(encoded(grey()[::-1].copy(), "PNG"))
    done = exactile(*arguments)
    assert done.returncode != 0
    assert "another run made it" in done.stdout + done.stderr
