"""Networks with obstacles to exact tiling: one pass over the whole image, as plain ONNX Runtime does it."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import numpy as np
import onnxruntime as ort
import pytest
import tifffile

import exactile
from exactile.contract import ImageStatistics
from exactile.errors import BudgetError, ExactileError, NotTileableError, OptionError, PlanError
from exactile.sinks.tiff.sink import TiffSink
from exactile_converters.bundles.bundle import BundleContent, write_bundle
from exactile_converters.deploy import Normalization, deploy, deploy_whole
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support import whole_nets
from tests.support.command import exactile as command
from tests.support.command import run_json
from tests.support.whole_nets import MAPS, parsed

SIZE = (61, 46)


def picture(height: int = SIZE[0], width: int = SIZE[1], seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain(model: bytes, image: np.ndarray, *, last: bool = False) -> np.ndarray:
    """What ONNX Runtime gives for the whole image, without the batch; ``last``: channels are the last axis."""
    values = image.astype(np.float32)
    values = values if last else np.ascontiguousarray(values.transpose(2, 0, 1))
    (result,) = ort.InferenceSession(model).run(None, {"image": values[None]})
    return result[0]


def whole(model: bytes, image: np.ndarray, *, name: str = "net", plan="auto", **options):
    """Result, summary and contract of a model deployed for this image."""
    network = prepare_network(parsed(model), name=name)
    deployed = deploy_whole(network, image_size=image.shape[:2], image_dtype="uint8", **options)
    sink = exactile.ArraySink()
    summary = exactile.Session(deployed).segment(exactile.ArraySource(image), sink, plan=plan)
    return sink.result, summary, deployed.contract


@pytest.mark.parametrize("name", MAPS)
def test_the_result_is_that_of_onnx_runtime_bit_for_bit(name):
    """At an odd size, by the plan that is chosen, with the obstacle as the reason."""
    image, model = picture(), MAPS[name]()
    raw, summary, contract = whole(model, image, output="raw")
    assert np.array_equal(raw, plain(model, image))
    assert (summary.plan, summary.tiles) == ("whole", 1)
    assert summary.reason.startswith("one pass over the whole image, ")
    assert contract.obstacles[0] in summary.reason
    assert summary.verification.sentence == "it is one pass"
    assert summary.computed_pixels == summary.wanted_pixels == image.shape[0] * image.shape[1]
    with pytest.raises(NotTileableError):
        deploy(prepare_network(parsed(model), name=name), image_dtype="uint8")


def test_the_image_s_size_decides_a_branch():
    """One network, two sizes, and what each of them computes."""
    model = whole_nets.branching()
    results = [whole(model, picture(rows, 46), output="raw")[0] for rows in (50, 51)]
    for rows, result in zip((50, 51), results, strict=True):
        assert np.array_equal(result, plain(model, picture(rows, 46)))


@pytest.mark.parametrize(("name", "scale"), [("reduced", Fraction(1, 2)), ("enlarged", Fraction(2)), ("pooled", 1)])
def test_the_result_s_size_against_the_image_s_is_told(name, scale):
    source = exactile.ArraySource(picture())
    source.pixel_size_um = (0.5, 0.25)
    network = prepare_network(parsed(MAPS[name]()), name=name)
    deployed = deploy_whole(network, image_size=SIZE, image_dtype="uint8")
    session, sink = exactile.Session(deployed), exactile.ArraySink()
    choice = session.plan(source, sink)
    assert (deployed.contract.geometry.y.scale, deployed.contract.geometry.x.scale) == (scale, scale)
    spec = session._planner.result_spec(choice.plan, source)
    assert spec.pixel_size_um == (0.5 / scale, 0.25 / scale)
    assert (spec.height, spec.width) == plain(MAPS[name](), picture()).shape[1:]


@pytest.mark.parametrize(
    ("name", "origin", "lost"), [("unpadded", (1, 1), (2, 2)), ("shifted", (3, 0), (3, 2)), ("pooled", (0, 0), (0, 0))]
)
def test_where_a_result_lies_that_has_lost_pixels_is_told(name, origin, lost):
    """At the size of the image as it is: nothing is extended."""
    model = getattr(whole_nets, name)()
    raw, summary, contract = whole(model, picture(), output="raw")
    assert np.array_equal(raw, plain(model, picture()))
    assert raw.shape[1:] == (SIZE[0] - lost[0], SIZE[1] - lost[1])
    assert (contract.geometry.y.origin, contract.geometry.x.origin) == origin
    assert summary.domain == SIZE


def test_axes_are_told_by_what_grows_with_the_image():
    """Channels last, where they could be taken for columns: as many as the image has."""
    image = picture(5, 5)
    labels, _, _ = whole(whole_nets.channels_last(), image)
    assert np.array_equal(labels, plain(whole_nets.channels_last(), image, last=True).argmax(-1))


def test_every_output():
    image, model = picture(), whole_nets.squeeze_and_excitation()
    scores = plain(model, image).astype(np.float64)
    soft = np.exp(scores - scores.max(0))
    labels, summary, _ = whole(model, image)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, scores.argmax(0))
    assert summary.rule == "the channel with the largest of 5 values"
    assert np.allclose(whole(model, image, output="probabilities")[0], soft / soft.sum(0), atol=1e-6)
    planes, _, _ = whole(model, image, output="multilabel", threshold=0.75)
    assert np.array_equal(planes, scores > np.log(0.75 / 0.25))
    own, _, _ = whole(whole_nets.labelled(), image)
    assert np.array_equal(own, plain(whole_nets.labelled(), image))


def test_statistics_of_the_whole_image():
    image, model = picture(), whole_nets.pooled()
    statistics = ImageStatistics(kind="percentile", low=2.0, high=90.0, per_channel=False)
    raw, _, _ = whole(model, image, output="raw", normalization=Normalization(statistics=statistics))
    low, high = np.percentile(image, (2, 90))
    expected = plain(model, ((image - low) / (high - low + 1e-6)).astype(np.float32))
    assert np.abs(raw - expected).max() < 1e-4


def test_a_network_exported_at_one_size_runs_at_it_alone():
    model, image = whole_nets.fixed(*SIZE), picture()
    raw, summary, _ = whole(model, image, output="raw")
    assert np.array_equal(raw, plain(model, image))
    assert "at any size but the one that it was exported at" in summary.reason
    with pytest.raises(PlanError, match=r"exported for images of 61 x 46 pixels, and this one has 60 x 46; export it"):
        whole(model, picture(60, 46))


REFUSED = {
    "unpadded_and_grouped": r"has 59 x 44 pixels for an image of 61 x 46, and where in the image they lie is not known",
    "unpadded_and_flipped": r"has 59 x 44 pixels for an image of 61 x 46, and where in the image they lie is not known",
    "never": r"does not take 61 x 46 pixels \(Add 'Add_b': .*\. The same holds for sizes up to 63 pixels larger",
    "classifier": r"its output \[1, 16, 1, 1\] is no map of an image",
    "counting": r"NonZero 'NonZero_out' gives has a shape that is not known before it runs",
    "looping": r"the memory of Loop 'Loop_b' is not known before it runs: it holds subgraphs",
    "deciding": r"the memory of If 'If_b' is not known before it runs: it holds subgraphs",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_run_is_refused_with_the_obstacle(name):
    with pytest.raises(PlanError, match=REFUSED[name]) as caught:
        whole(getattr(whole_nets, name)(), picture())
    assert "It cannot be tiled, either, because of " in str(caught.value)


def test_an_image_of_a_size_that_is_taken_is_run_as_it_is_even_where_the_result_loses_pixels():
    model, image = whole_nets.floored(), picture()
    raw, summary, _ = whole(model, image, output="raw")
    assert np.array_equal(raw, plain(model, image))
    assert raw.shape[1:] == tuple(side // 4 * 4 for side in SIZE)
    assert (summary.domain, summary.padded_because) == (SIZE, "")


def test_an_image_of_a_size_that_is_not_taken_is_extended_and_the_summary_says_so():
    """By reflection at the bottom and right, as where tiles are possible; where the size is taken, it is not."""
    model = whole_nets.skipping()
    image = picture()
    raw, summary, _ = whole(model, image, output="raw")
    extended = np.pad(image, ((0, 3), (0, 2), (0, 0)), mode="reflect")
    assert np.array_equal(raw, plain(model, extended)[:, : SIZE[0], : SIZE[1]])
    assert (summary.image, summary.domain, summary.tile) == (SIZE, (64, 48), (64, 48))
    assert "one pass over the whole image, extended to 64 x 48 pixels, which is the fastest" in summary.reason
    assert summary.padded_because == "because the network does not accept its size"
    raw, summary, _ = whole(model, extended, output="raw")
    assert np.array_equal(raw, plain(model, extended))
    assert "extended" not in summary.reason


def test_a_tileable_network_is_not_for_one_size():
    with pytest.raises(OptionError, match="can be tiled exactly"):
        whole(whole_nets.model_of([whole_nets.FIRST, ("Relu", ["a"], ["out"], {})], whole_nets.WEIGHTS), picture())


@pytest.fixture(scope="module")
def session():
    network = prepare_network(parsed(whole_nets.pooled()), name="pooled")
    return exactile.Session(deploy_whole(network, image_size=SIZE, image_dtype="uint8"))


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        ({"plan": "tile"}, NotTileableError, r"(?s)--plan tile: .*GlobalAveragePool_g.*--plan whole, or auto"),
        ({"plan": "strip"}, NotTileableError, r"(?s)--plan strip: .*GlobalAveragePool_g.*--plan whole, or auto"),
        ({"tile": (32, 32)}, NotTileableError, r"(?s)--tile 32x32: .*GlobalAveragePool_g"),
        ({"border": "reflect"}, OptionError, r"--border reflect .*GlobalAveragePool_g"),
    ],
)
def test_what_only_tiles_have_is_refused_by_the_obstacle(session, wish, error, words):
    with pytest.raises(error, match=words):
        session.segment(exactile.ArraySource(picture()), exactile.ArraySink(), **wish)


def test_background_is_refused_by_the_obstacle(session):
    from exactile.plan.background import Threshold

    with pytest.raises(OptionError, match=r"--skip-background .*GlobalAveragePool_g"):
        session.segment(
            exactile.ArraySource(picture()), exactile.ArraySink(), background=Threshold(value=200, beyond="above")
        )


def test_a_run_that_ends_early_goes_on_to_the_same_bytes(tmp_path):
    """Statistics that were measured are kept, and so is the plan, over an image that is extended."""
    statistics = ImageStatistics(kind="zscore")
    network = prepare_network(parsed(whole_nets.skipping()), name="skipping")
    deployed = deploy_whole(
        network, image_size=SIZE, image_dtype="uint8", normalization=Normalization(statistics=statistics)
    )
    session, source = exactile.Session(deployed), exactile.ArraySource(picture())
    session.segment(source, TiffSink(tmp_path / "straight.tif", tile=32))
    sink = TiffSink(tmp_path / "labels.tif", tile=32, resumable=True)
    with pytest.raises(ZeroDivisionError):
        session.segment(source, sink, planned=lambda _plan: None, progress=lambda pixels: 1 // (pixels == 0))
    measured = []
    summary = session.segment(
        source,
        TiffSink(tmp_path / "labels.tif", tile=32, resumable=True),
        resume=True,
        measuring=lambda done, _total: measured.append(done),
    )
    assert (measured, summary.plan) == ([], "whole")
    assert (tmp_path / "labels.tif").read_bytes() == (tmp_path / "straight.tif").read_bytes()


@pytest.mark.parametrize("size", [(60, 46), (2 * SIZE[0], 2 * SIZE[1]), (30, 23)])
def test_an_image_of_another_size_is_refused(session, size):
    with pytest.raises(PlanError, match=rf"61 x 46 pixels, .* this one has {size[0]} x {size[1]}"):
        session.segment(exactile.ArraySource(picture(*size)), exactile.ArraySink())


def test_rows_that_arrive_are_refused_by_the_obstacle(session):
    with pytest.raises(PlanError, match="GlobalAveragePool_g"):
        session.stream(width=SIZE[1], dtype="uint8")


def test_too_little_memory_names_the_obstacle_the_need_and_the_budget():
    """Scores of 4096 x 4096 positions, told before anything is computed."""
    image = np.zeros((64, 64, 3), np.uint8)
    network = prepare_network(parsed(whole_nets.attention()), name="attention")
    large = deploy_whole(network, image_size=(640, 640), image_dtype="uint8")
    with pytest.raises(BudgetError) as caught:
        exactile.Session(large, memory_bytes=8 << 30).plan(
            exactile.ArraySource(np.zeros((640, 640, 3), np.uint8)), exactile.ArraySink()
        )
    message = str(caught.value)
    assert "one pass over 640 x 640 pixels needs about" in message
    assert "8.00 GiB" in message
    assert "MatMul 'MatMul_scores'" in message
    needed = float(re.findall(r"needs about ([\d.]+) GiB", message)[0])
    scores = (640 * 640) ** 2 * 4 / 2**30
    assert scores < needed < 4 * scores
    assert whole(whole_nets.attention(), image)[1].plan == "whole"


def test_a_bundle_is_not_written_for_one_size(tmp_path):
    network = prepare_network(parsed(whole_nets.pooled()), name="pooled")
    deployed = deploy_whole(network, image_size=SIZE, image_dtype="uint8")
    content = BundleContent(
        model=deployed, source="pooled.onnx", normalization=Normalization(), classes=(), tile=SIZE,
        sample_image=picture(), sample_result=np.zeros(SIZE, np.uint8))  # fmt: skip
    with pytest.raises(NotTileableError, match="GlobalAveragePool_g"):
        write_bundle(content, tmp_path / "pooled.bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Networks, and images of three sizes in a folder."""
    folder = tmp_path_factory.mktemp("one_pass")
    for name in ("pooled", "skipping"):
        (folder / f"{name}.onnx").write_bytes(getattr(whole_nets, name)())
    (folder / "fixed.onnx").write_bytes(whole_nets.fixed(64, 48))
    (folder / "in").mkdir()
    for height, width in (SIZE, (60, 44), (64, 48)):
        tifffile.imwrite(folder / "in" / f"{height}.tif", picture(height, width), photometric="rgb")
    return folder


def test_the_command_runs_it_and_says_why_in_one_pass(files, tmp_path):
    target = tmp_path / "labels.tif"
    summary = run_json(files / "pooled.onnx", files / "in" / "61.tif", "-o", target, "--preview", "--scale", 255)
    image = picture().astype(np.float32) / np.float32(255)
    assert np.array_equal(tifffile.imread(target), plain(whole_nets.pooled(), image).argmax(0))
    assert summary["plan"] == "whole"
    assert "because of GlobalAveragePool 'GlobalAveragePool_g'" in summary["reason"]
    assert (tmp_path / "labels.tif.preview.png").exists()
    done = command("run", files / "fixed.onnx", files / "in" / "64.tif", "-o", tmp_path / "b.tif", "--plan", "tile")
    assert done.returncode == NotTileableError.exit_status
    assert "cannot be tiled exactly" in done.stderr
    assert not (tmp_path / "b.tif").exists()
    summary = run_json(files / "fixed.onnx", files / "in" / "64.tif", "-o", tmp_path / "c.tif")
    assert summary["reason"].endswith("; exactile inspect lists what to change in the network")


def test_many_images_of_different_sizes(files, tmp_path):
    """Each as by itself; a second call leaves all as they are."""
    options = ("run", files / "skipping.onnx", files / "in", "-o", tmp_path / "out", "--json")
    done = command(*options)
    assert done.returncode == 0
    told = {entry["image"].rpartition("/")[2]: entry for entry in json.loads(done.stdout)}
    for height, width in (SIZE, (60, 44), (64, 48)):
        labels = tifffile.imread(tmp_path / "out" / f"{height}.tif")
        image = np.pad(picture(height, width), ((0, -height % 4), (0, -width % 4), (0, 0)), mode="reflect")
        assert np.array_equal(labels, plain(whole_nets.skipping(), image).argmax(0)[:height, :width])
        assert "because of GlobalAveragePool" in told[f"{height}.tif"]["reason"]
        assert told[f"{height}.tif"]["padded_size"] == list(image.shape[:2])
    again = command(*options, "--resume")
    assert [entry.get("complete") for entry in json.loads(again.stdout)] == [True, True, True]


def test_images_of_other_sizes_than_a_fixed_one_fail_alone(files, tmp_path):
    done = command("run", files / "fixed.onnx", files / "in", "-o", tmp_path / "out")
    assert done.returncode == PlanError.exit_status
    assert "2 of 3 images failed" in done.stderr
    assert done.stderr.count("exported for images of 64 x 48 pixels, and this one has ") == 2
    labels = tifffile.imread(tmp_path / "out" / "64.tif")
    assert np.array_equal(labels, plain((files / "fixed.onnx").read_bytes(), picture(64, 48)).argmax(0))


def test_inspect_and_convert_say_what_can_be_done(files, tmp_path):
    inspected = command("inspect", files / "pooled.onnx").stdout
    assert "yes, with --plan whole (or auto), where it fits the memory" in inspected
    told = json.loads(command("inspect", files / "pooled.onnx", "--json").stdout)
    assert (told["tileable"], told["no_one_pass_reason"]) == (False, None)
    (tmp_path / "classifier.onnx").write_bytes(whole_nets.classifier())
    assert (
        "is no map"
        in json.loads(command("inspect", tmp_path / "classifier.onnx", "--json").stdout)["no_one_pass_reason"]
    )
    (tmp_path / "attention.onnx").write_bytes(whole_nets.attention())
    converted = command("convert", tmp_path / "attention.onnx", "-o", tmp_path / "attention.bundle")
    assert converted.returncode == NotTileableError.exit_status
    assert "exactile run MODEL.onnx IMAGE runs this network in one pass" in converted.stderr


@pytest.mark.parametrize("name", ["squeeze_and_excitation", "attention_operator", "group_norm_operator"])
def test_what_one_pass_takes_is_what_was_predicted(files, tmp_path, name):
    """In a process of its own: never more, and not less than half."""
    (tmp_path / "net.onnx").write_bytes(MAPS[name]())
    side = 72 if "attention" in name else 900
    np.save(tmp_path / "image.npy", picture(side, side))
    summary = run_json(tmp_path / "net.onnx", tmp_path / "image.npy", "-o", tmp_path / "labels.npy")
    assert 0.5 < summary["peak_memory_bytes"] / summary["predicted_memory_bytes"] < 1


def test_gpus_are_refused(session):
    """With a reason, which the CPU states where the choice was free."""
    from exactile.processors import choice

    with pytest.raises(ExactileError, match="cannot be tiled exactly runs on the CPU only"):
        choice._engines(session._model, "auto", "", ())
