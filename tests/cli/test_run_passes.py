"""The command line and ``exactile.segment`` of networks that take statistics of the whole image."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tifffile
from typer.testing import CliRunner

import exactile
import exactile.runs.ways
from exactile.cli.main import app
from exactile.cli.run_request import RunRequest
from exactile.contract import DeployedModel
from exactile.errors import BudgetError, NotTileableError, OptionError, VerificationError
from exactile.machine.cache_folder import FOLDER_VARIABLE
from exactile.passes.run import Passes
from exactile.request.kept_models import KeptModels
from exactile.request.normalization import NormalizationNumbers
from exactile.request.onnx_models import OnnxModels, when_whole
from exactile.session import Session
from exactile.sinks.tiff.sink import TiffSink
from exactile_converters.convert import convert
from exactile_converters.passes import deploy as passes_deploy
from exactile_converters.passes.fixed import with_fixed_statistics
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.verify.claim_check import check_claim
from tests.support import whole_nets

SIZE = (77, 58)
TILE = (24, 24)
NAMES = ("squeeze_and_excitation", "instance_norm", "group_norm", "skipping")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("passes")
    for name in (*NAMES, "attention"):
        (found / f"{name}.onnx").write_bytes(getattr(whole_nets, name)())
    (found / "in").mkdir()
    for index, size in enumerate((SIZE, (60, 44), SIZE)):
        tifffile.imwrite(found / "in" / f"{index}.tif", picture(*size), photometric="rgb", tile=(32, 32))
    return found


@pytest.fixture(autouse=True)
def cache(folder, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "cache"))


def picture(height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """Dark in one corner, so that statistics of parts differ from those of the whole."""
    image = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 2, : width // 2] //= 4
    return image


def plain(path, values: np.ndarray) -> np.ndarray:
    """What ONNX Runtime gives for the whole image (H, W, C) float32."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": np.ascontiguousarray(values.transpose(2, 0, 1))[None]})[0][0]


def check(result: np.ndarray, expected: np.ndarray) -> None:
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{"plan": "tile", "tile": TILE}, {"plan": "strip"}, {"plan": "whole"}, {}])
def test_every_plan_gives_what_one_pass_gives(folder, name, options, capsys):
    """At an odd size; one that the network refuses is extended, and the statistics are of what it was extended to."""
    image = picture()
    seen = np.pad(image, ((0, 3), (0, 2), (0, 0)), mode="reflect") if name == "skipping" else image
    path = folder / f"{name}.onnx"
    expected = plain(path, seen.astype(np.float32) / np.float32(255))[:, : SIZE[0], : SIZE[1]]
    check(exactile.segment(path, image, output="raw", scale=255, **options), expected)
    assert capsys.readouterr().err == ""


def test_samples_are_normalised_by_statistics_of_the_image_before(folder):
    image = picture()
    values = image.astype(np.float64)
    values = ((values - values.mean((0, 1))) / (values.std((0, 1)) + 1e-6)).astype(np.float32)
    path = folder / "instance_norm.onnx"
    result = exactile.segment(path, image, output="raw", normalize="zscore", plan="tile", tile=TILE)
    check(result, plain(path, values))


def models(path, **options) -> OnnxModels:
    wish = {"output": "raw", "threshold": None, "activation": None}
    found = OnnxModels(path=path, normalization=NormalizationNumbers(), wish=wish, output_name=None, strips=True,
                       kept=KeptModels(path, "", None), unverified="no", **options)  # fmt: skip
    found.read()
    return found


def test_one_pass_is_the_first_choice_and_passes_where_it_does_not_fit(folder):
    found = models(folder / "instance_norm.onnx", whole=when_whole("auto", tiles=False))
    asked: list[DeployedModel] = []

    def fits(model: DeployedModel) -> bool:
        asked.append(model)
        return len(asked) == 1

    assert found.model_for("uint8", SIZE, fits).contract.in_passes
    assert found.model_for("uint8", SIZE, fits).levels
    assert all(model.contract.in_passes and model.contract.only_size == SIZE for model in asked)
    assert not found.model_for("float32", SIZE, lambda _model: True).levels


@pytest.mark.parametrize(
    ("plan", "tiles", "levels"), [("whole", False, 0), ("tile", False, 1), ("strip", False, 1), ("auto", True, 1)]
)
def test_a_plan_that_is_asked_for_decides(folder, plan, tiles, levels):
    found = models(folder / "instance_norm.onnx", whole=when_whole(plan, tiles=tiles))
    model = found.model_for("uint8", SIZE, lambda _model: pytest.fail("nobody is to ask"))
    assert len(model.levels) == levels


def test_other_obstacles_are_named_alone(folder):
    """Attention over all positions has no passes: one pass, and the reason is not that it also pools."""
    found = models(folder / "attention.onnx", whole="last")
    model = found.model_for("uint8", (32, 32), lambda _model: pytest.fail("nobody is to ask"))
    assert not model.contract.in_passes
    assert all("MatMul_scores" in obstacle for obstacle in model.contract.obstacles)
    with pytest.raises(NotTileableError, match="MatMul_scores"):
        exactile.segment(folder / "attention.onnx", picture(32, 32), plan="tile", tile=(16, 16))


def test_what_one_pass_cannot_hold_runs_in_passes(folder, monkeypatch):
    """The memory that is asked for decides; with --plan whole it is an error that says what to do."""
    path, image = folder / "squeeze_and_excitation.onnx", picture()
    honest = Session.plan

    def scarce(session, source, sink, **options):
        if session.contract.obstacles:
            raise BudgetError("too large")
        return honest(session, source, sink, **options)

    monkeypatch.setattr(Session, "plan", scarce)
    seen: list[tuple[int, int]] = []
    ran = Session.segment

    def watched(session, *args, **options):
        summary = ran(session, *args, **options)
        seen.append((len(summary.passes), summary.tiles))
        return summary

    monkeypatch.setattr(Session, "segment", watched)
    check(exactile.segment(path, image, output="raw"), plain(path, image.astype(np.float32)))
    assert seen[-1] == (1, 1)


def test_borders_by_the_halo_are_refused(folder):
    for options in ({}, {"plan": "tile"}):
        with pytest.raises(OptionError, match="--border reflect extends the image by the halo"):
            exactile.segment(folder / "instance_norm.onnx", picture(), border="reflect", **options)


def run(*arguments) -> dict:
    done = CliRunner().invoke(app, ["run", *map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_command_tells_of_passes(folder, tmp_path):
    """In the summary, as JSON, and in the trace; background is left out of the result's pass alone."""
    target, image = tmp_path / "labels.tif", picture()
    image[:24, :24] = 255
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb")
    path = folder / "squeeze_and_excitation.onnx"
    options = ("--skip-background", 254, "--background-label", 9, "--tile", 24, "--trace", tmp_path / "trace.json")
    summary = run(path, tmp_path / "image.tif", "-o", target, *options)
    (found,) = summary["passes"]
    assert found["statistics"] == 1
    assert found["tiles"] > 1
    assert found["computed_pixels"] >= SIZE[0] * SIZE[1]
    labels, expected = tifffile.imread(target), plain(path, image.astype(np.float32)).argmax(0)
    assert summary["skipped_tiles"] > 0
    assert set(labels[labels != expected]) <= {9}
    assert (tmp_path / "trace.json").stat().st_size > 0


def test_many_images_of_several_sizes(folder, tmp_path):
    path = folder / "instance_norm.onnx"
    told = run(path, folder / "in", "-o", tmp_path / "out", "--plan", "tile", "--tile", 24)
    assert [len(entry["passes"]) for entry in told] == [1, 1, 1]
    for index, size in enumerate((SIZE, (60, 44), SIZE)):
        labels = tifffile.imread(tmp_path / "out" / f"{index}.tif")
        scores = np.sort(plain(path, picture(*size).astype(np.float32)), axis=0)
        ties = scores[-1] - scores[-2] <= 2 * TOLERANCE * np.abs(scores).max()
        expected = plain(path, picture(*size).astype(np.float32)).argmax(0)
        assert (ties | (labels == expected)).all()


class StoppedError(Exception):
    """Somebody pulled the plug."""


def stop(*_) -> None:
    raise StoppedError


def test_a_run_is_gone_on_with_in_the_same_way(folder, tmp_path, monkeypatch):
    """Where one pass would fit by now, too: to the same bytes, and statistics are not found again."""
    image, path = tmp_path / "image.tif", folder / "instance_norm.onnx"
    tifffile.imwrite(image, picture(), photometric="rgb")
    with monkeypatch.context() as before:
        before.setattr(RunRequest, "_has_plan", lambda *_: False)
        assert run(path, image, "-o", tmp_path / "straight.tif")["passes"]
        before.setattr(TiffSink, "finish", stop)
        stopped = CliRunner().invoke(app, ["run", str(path), str(image), "-o", str(tmp_path / "labels.tif")])
        assert "what is done of" in stopped.stderr
    with monkeypatch.context() as after:
        after.setattr(Passes, "run_level", stop)
        summary = run(path, image, "-o", tmp_path / "labels.tif", "--resume")
    assert summary["kept_pixels"] == SIZE[0] * SIZE[1]
    assert (tmp_path / "labels.tif").read_bytes() == (tmp_path / "straight.tif").read_bytes()
    assert run(path, image, "-o", tmp_path / "other.tif")["passes"] == []


@pytest.mark.parametrize("kept", [True, False])
def test_a_bundle_is_resumed_in_the_same_way(folder, tmp_path, monkeypatch, kept):
    """With maps that were kept, and without, where one pass over the whole image would fit by now."""
    image, path = tmp_path / "image.tif", tmp_path / "bundle"
    tifffile.imwrite(image, picture(), photometric="rgb")
    convert(folder / "instance_norm.onnx", path, tile=TILE, verify=False)
    with monkeypatch.context() as before:
        before.setattr(exactile.runs.ways, "_has_plan", lambda *_: False)
        if not kept:
            before.setattr(exactile.runs.ways.Ways, "_has_room", lambda *_: False)
        assert run(path, image, "-o", tmp_path / "straight.tif")["passes"]
        before.setattr(TiffSink, "finish", stop)
        stopped = CliRunner().invoke(app, ["run", str(path), str(image), "-o", str(tmp_path / "labels.tif")])
        assert "what is done of" in stopped.stderr
    summary = run(path, image, "-o", tmp_path / "labels.tif", "--resume")
    assert summary["kept_pixels"] == SIZE[0] * SIZE[1]
    assert (tmp_path / "labels.tif").read_bytes() == (tmp_path / "straight.tif").read_bytes()
    assert run(path, image, "-o", tmp_path / "other.tif")["passes"] == []


@pytest.mark.parametrize("name", ["squeeze_and_excitation", "group_norm"])
def test_the_claim_is_proved_by_running(folder, name):
    network = prepare_network(onnx.load(folder / f"{name}.onnx"), name=name)
    found = check_claim(network)
    assert (found.tiles, found.strips, found.with_strips, found.untried) == ("", "", True, "")
    assert network.trace().geometry is None, "the network is not as it was"


def test_wrong_statistics_are_found_by_running(folder, monkeypatch):
    """Zones that leave out what lies at the end of the image; the run is refused."""
    monkeypatch.setattr("exactile.plan.zones.TO_THE_END", 8)
    network = prepare_network(onnx.load(folder / "instance_norm.onnx"), name="net")
    assert "differ from one pass" in check_claim(network).tiles
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "other"))
    with pytest.raises(VerificationError, match="tiles would not equal one pass"):
        exactile.segment(folder / "instance_norm.onnx", picture(), plan="tile", tile=TILE)


def test_fixed_statistics_make_a_network_local(folder):
    network = prepare_network(onnx.load(folder / "instance_norm.onnx"), name="net")
    _, reductions = passes_deploy.without_statistics(network.copy())
    values = {one.name: np.full(one.const_value.shape, 0.5, np.float32) for one in reductions[0].placeholders}
    assert with_fixed_statistics(network, values).trace().geometry is not None
    with pytest.raises(OptionError, match="statistics of another network"):
        with_fixed_statistics(network, {"other": np.zeros(3, np.float32)})


def test_a_scratch_folder_that_is_missing_is_told(folder, tmp_path):
    """Before anything is computed; one that is there is empty afterwards."""
    image, target = folder / "in" / "0.tif", tmp_path / "labels.tif"
    words = [
        "run",
        str(folder / "instance_norm.onnx"),
        str(image),
        "-o",
        str(target),
        "--plan",
        "tile",
        "--no-progress",
    ]
    found = CliRunner().invoke(app, [*words, "--scratch", str(tmp_path / "none")])
    assert found.exit_code != 0
    assert "there is no such folder" in found.output
    (tmp_path / "scratch").mkdir()
    found = CliRunner().invoke(app, [*words, "--scratch", str(tmp_path / "scratch")])
    assert found.exit_code == 0, found.output
    assert not list((tmp_path / "scratch").iterdir())
