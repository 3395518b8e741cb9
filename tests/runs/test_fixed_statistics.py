"""Statistics of many images, fixed for others: against numpy over all pixels and plain ONNX Runtime with constants."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
import tifffile
from onnx import numpy_helper
from typer.testing import CliRunner

import exactile
from exactile.cli.main import app
from exactile.contract import DeployedModel, ImageStatistics
from exactile.errors import OptionError, PlanError, SourceError
from exactile.machine.cache_folder import FOLDER_VARIABLE
from exactile.passes.fixed import FixedStatistics, read_statistics
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, deploy, deploy_in_passes, deploy_whole
from exactile_converters.prepare.from_onnx import prepare_network
from tests.cli.test_run_passes import stop
from tests.passes.test_passes import image_of, one_pass, small_tile
from tests.support import global_nets, whole_nets
from tests.support.global_nets import GlobalNet, affine, chain

SIZE = (40, 52)
OTHER_SIZE = (41, 57)
EPSILON = 1e-5
TOLERANCE = 1e-6


def network(model: bytes):
    return prepare_network(onnx.load_from_string(model), name="global.onnx")


@cache
def deployed(model: bytes, size: tuple[int, int] | None = None) -> DeployedModel:
    return deploy_in_passes(network(model), image_dtype="uint8", output="raw", image_size=size)


def measured(model: DeployedModel, *images: np.ndarray, **options) -> FixedStatistics:
    return Session(model).measure_statistics([ArraySource(image) for image in images], **options)


def segment(model: DeployedModel, image: np.ndarray, statistics: FixedStatistics | None = None, **options):
    sink = ArraySink()
    summary = Session(model).segment(ArraySource(image), sink, statistics=statistics, **options)
    return sink.result, summary


def without_statistics() -> bytes:
    net = GlobalNet(seed=1)
    return net.model(net.layer("image", 1, 2))


class CutError(Exception):
    """The graph ends at this value, where a normalisation would come."""


class WithConstants:
    """A chain of instance norms written with constants for their statistics, by whoever knows nothing of passes."""

    def __init__(self, monkeypatch) -> None:
        self.found: list[tuple[np.ndarray, np.ndarray]] = []
        self._used = 0
        monkeypatch.setitem(global_nets.BLOCKS, "constant_norm", self._block)

    def _block(self, net: GlobalNet, value: str, channels: int) -> str:
        if self._used == len(self.found):
            raise CutError(net.model(value))
        mean, variance = self.found[self._used]
        self._used += 1
        scale, bias = (onnx_value(net, name) for name in affine(net, channels))
        factor = scale / np.sqrt(variance + EPSILON)
        shape = (1, channels, 1, 1)
        scaled = net.add("Mul", value, net.constant(factor.reshape(shape), np.float32))
        return net.add("Add", scaled, net.constant((bias - mean * factor).reshape(shape), np.float32))

    def model(self, times: int) -> bytes:
        self._used = 0
        return chain("constant_norm", times=times)

    def pool(self, times: int, images: list[np.ndarray]) -> bytes:
        """Statistics of the pixels of all images, level by level; the network with them."""
        while True:
            try:
                return self.model(times)
            except CutError as cut:
                maps = [one_pass(cut.args[0], image).reshape(global_nets.CHANNELS, -1) for image in images]
                pixels = np.concatenate(maps, axis=1).astype(np.float64)
                self.found.append((pixels.mean(1), pixels.var(1)))


def onnx_value(net: GlobalNet, name: str) -> np.ndarray:
    """A constant of ``net``."""
    return next(numpy_helper.to_array(one) for one in net.constants if one.name == name).astype(np.float64)


def near(result: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_statistics_are_those_of_all_pixels_of_all_images(monkeypatch):
    """Images of several sizes, level by level; a third image is then run with them, in every plan."""
    images, third = [image_of(SIZE), image_of(OTHER_SIZE)[:, ::-1] // 2, image_of((24, 24)) + 30], image_of((50, 44))
    oracle = WithConstants(monkeypatch)
    pooled = oracle.pool(2, images)
    found = deployed(chain("instance_norm"))
    statistics = measured(found, *images, tile=(32, 36))
    assert [name.removeprefix("exactile_statistic_") for name in statistics.values] == [
        "0_mean", "0_variance", "1_mean", "1_variance",
    ]  # fmt: skip
    for number, values in enumerate(oracle.found):
        for name, expected in zip(("mean", "variance"), values, strict=True):
            near(statistics.values[f"exactile_statistic_{number}_{name}"].ravel(), expected)
    assert (statistics.pixels, len(statistics.images)) == (sum(image.size for image in images), 3)
    expected = one_pass(pooled, third)
    for options in ({"plan": "whole"}, {"tile": small_tile(found, third.shape[:2])}, {"plan": "strip"}):
        result, summary = segment(found, third, statistics, **options)
        near(result, expected)
        assert (summary.passes, summary.statistics) == ((), statistics)
    with pytest.raises(AssertionError):
        near(segment(found, third)[0], expected)


def test_borders_extend_the_image_as_with_any_local_network(monkeypatch):
    """Refused where each pass would have its own halo; with fixed statistics there is one."""
    image = image_of(SIZE)
    oracle = WithConstants(monkeypatch)
    pooled = oracle.pool(2, [image])
    found = deployed(chain("instance_norm"))
    statistics = measured(found, image)
    far = 32
    expected = one_pass(pooled, np.pad(image, ((far, far), (far, far), (0, 0)), mode="reflect"))
    inner = expected[:, far : far + SIZE[0], far : far + SIZE[1]]
    near(segment(found, image, statistics, border="reflect")[0], inner)


@pytest.mark.parametrize("block", ["instance_norm", "excitation", "largest", "root_of_squares", "decomposed_norm"])
def test_an_image_with_its_own_statistics_is_what_passes_make_of_it(block):
    """To the last bit where the tiles are the same; and as one pass of plain ONNX Runtime."""
    model, image = chain(block), image_of(OTHER_SIZE)
    found = replace(deployed(model, OTHER_SIZE), keeping=None)
    tile = small_tile(found, OTHER_SIZE)
    statistics = measured(found, image, tile=tile)
    result, summary = segment(found, image, statistics, tile=tile)
    assert summary.tiles > 1
    np.testing.assert_array_equal(result, segment(found, image, tile=tile)[0])
    near(result, one_pass(model, image))


def test_rows_that_are_pushed_give_what_the_complete_image_gives():
    """Any number of rows at a time; also fewer than a strip needs. Without statistics, what to do is said."""
    found = deployed(chain("instance_norm"))
    statistics = measured(found, image_of(SIZE))
    for height in (64, 5):
        image = image_of((height, 52))
        expected, _ = segment(found, image, statistics, plan="strip")
        with Session(found).stream(width=52, dtype="uint8", height=height, statistics=statistics) as stream:
            pieces = [piece for row in range(0, height, 7) for _, piece in stream.push(image[row : row + 7])]
            pieces += [piece for _, piece in stream.close()]
        np.testing.assert_array_equal(np.concatenate(pieces, axis=1), expected)
    with pytest.raises(PlanError, match="exactile measure"):
        Session(found).stream(width=52, dtype="uint8")


def test_images_are_normalised_by_their_own_samples_before():
    """z-score of each image, then statistics of all: as if the images had been normalised before."""
    wish = {"image_dtype": "float32", "output": "raw"}
    images = [image_of(SIZE).astype(np.float32), image_of(OTHER_SIZE).astype(np.float32) * 3]
    scored = deploy_in_passes(
        network(chain("excitation")), normalization=Normalization(statistics=ImageStatistics(kind="zscore")), **wish
    )
    plain = deploy_in_passes(network(chain("excitation")), **wish)
    before = [((image - image.mean(dtype=np.float64)) / (image.std(dtype=np.float64) + 1e-6)) for image in images]
    expected = measured(plain, *(one.astype(np.float32) for one in before))
    for name, values in measured(scored, *images).values.items():
        near(values, expected.values[name], 1e-5)


def test_the_key_tells_networks_apart_and_nothing_else():
    """The same for every image size; another for other weights, normalisation and samples."""
    model = chain("instance_norm")
    keys = {deployed(model, size).statistics_key for size in (None, SIZE, OTHER_SIZE)}
    assert len(keys) == 1
    others = [
        deploy_in_passes(network(model), image_dtype="uint8", normalization=Normalization(scale=(255.0,))),
        deploy_in_passes(network(model), image_dtype="uint16"),
        deploy_in_passes(network(retrained(model)), image_dtype="uint8"),
    ]
    assert len(keys | {other.statistics_key for other in others}) == 4


def retrained(model: bytes) -> bytes:
    """One weight is another."""
    proto = onnx.load_from_string(model)
    one = next(one for one in proto.graph.initializer if len(one.dims) == 4)
    values = numpy_helper.to_array(one).copy()
    values.flat[0] += 0.5
    one.CopyFrom(numpy_helper.from_array(values, one.name))
    return proto.SerializeToString()


def test_a_bundle_takes_what_was_measured_with_its_onnx_file(tmp_path):
    """And the other way round, to the same bits."""
    (tmp_path / "net.onnx").write_bytes(chain("instance_norm"))
    convert(tmp_path / "net.onnx", tmp_path / "net.bundle", output="raw", verify=False)
    bundle, image = exactile.open_bundle(tmp_path / "net.bundle").model, image_of(SIZE)
    found = deployed(chain("instance_norm"))
    by_bundle, by_file = measured(bundle, image), measured(found, image)
    assert by_bundle.identity == by_file.identity
    np.testing.assert_array_equal(segment(bundle, image, by_file)[0], segment(found, image, by_bundle)[0])
    told = command("measure", tmp_path / "net.bundle", write_image(tmp_path, image), "-o", tmp_path / "s.json")
    assert told["sha256"] == by_file.identity


def write_image(folder, image: np.ndarray):
    np.save(folder / "image.npy", image)
    return folder / "image.npy"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: deployed(chain("excitation")), "another network, global.onnx, and not of global.onnx .unknown"),
        (lambda: deployed(retrained(chain("instance_norm"))), "measured with global.onnx, are not those of"),
        (lambda: deploy(network(without_statistics()), image_dtype="uint8"), "takes no statistics of the whole image"),
        (lambda: deploy_whole(network(chain("instance_norm")), image_size=SIZE, image_dtype="uint8"), "for one pass"),
    ],
)
def test_statistics_of_another_network_are_refused(other, words):
    statistics, model, sink = measured(deployed(chain("instance_norm")), image_of(SIZE)), other(), ArraySink()
    with pytest.raises(OptionError, match=words):
        Session(model).segment(ArraySource(image_of(SIZE)), sink, statistics=statistics)
    with pytest.raises(OptionError, match=words):
        Session(model).stream(width=52, dtype="uint8", statistics=statistics)


def test_what_cannot_be_measured_is_said(tmp_path):
    """No images; images of two types; an image with a sample that is no number; a network without statistics."""
    found = deployed(chain("instance_norm"))
    with pytest.raises(OptionError, match="give one or several"):
        measured(found)
    with pytest.raises(OptionError, match="image 2 holds uint16 samples and image 1 uint8"):
        measured(found, image_of(SIZE), image_of(SIZE).astype(np.uint16))
    floats = deploy_in_passes(network(chain("instance_norm")), image_dtype="float32")
    broken = image_of(SIZE).astype(np.float32)
    broken[3, 4] = np.nan
    with pytest.raises(OptionError, match="not a finite number"):
        measured(floats, broken)
    with pytest.raises(OptionError, match="convert the model again"):
        measured(replace(found, statistics_key=""), image_of(SIZE))
    with pytest.raises(OptionError, match="takes no statistics"):
        measured(deploy(network(without_statistics()), image_dtype="uint8"), image_of(SIZE))


def test_an_image_that_is_too_small_is_named():
    """Before anything is computed, as a run would refuse it; the least size that the network takes is measured."""
    net = GlobalNet(seed=1)
    half = net.add("MaxPool", "image", kernel_shape=[6, 6], strides=[2, 2])
    model = deployed(net.model(net.layer(global_nets.instance_norm(net, half, 1), 1, 2)))

    def never(_done: int, _total: int) -> None:
        pytest.fail("something was computed")

    with pytest.raises(PlanError, match=r"image 2: .* needs at least 6"):
        measured(model, image_of(SIZE), image_of((3, 30)), progress=never)
    assert measured(model, image_of((6, 30))).pixels == 180


def test_an_image_that_changes_between_passes_is_told(tmp_path):
    images = [image_of(SIZE), image_of(OTHER_SIZE)]

    def change(done: int, total: int) -> None:
        if done >= total // 2:
            images[0][0] += 1

    with pytest.raises(SourceError, match="image 1: the image changed"):
        measured(deployed(chain("instance_norm")), *images, progress=change)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("fixed")
    (found / "net.onnx").write_bytes(whole_nets.instance_norm())
    (found / "other.onnx").write_bytes(whole_nets.squeeze_and_excitation())
    (found / "attention.onnx").write_bytes(whole_nets.attention())
    (found / "in").mkdir()
    for index, size in enumerate(((77, 58), (60, 44))):
        pixels = np.random.default_rng(index).integers(0, 100 + 80 * index, (*size, 3), dtype=np.uint8)
        tifffile.imwrite(found / "in" / f"{index}.tif", pixels, photometric="rgb", tile=(32, 32))
    return found


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.getbasetemp() / "verdicts"))


def command(*arguments, fails: str = "") -> dict:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json", "--no-progress"])
    assert (done.exit_code != 0) == bool(fails), done.output
    if fails:
        assert fails in done.stderr
    return {} if fails else json.loads(done.stdout)


def test_measure_then_run_on_the_command_line(folder, tmp_path):
    """Several sizes; every plan; many images; what is written says whose statistics they are."""
    model, file = folder / "net.onnx", tmp_path / "s.json"
    told = command("measure", model, folder / "in", "-o", file, "--scale", 255)
    assert (told["images"], told["passes"], told["pixels"]) == (2, 1, 77 * 58 + 60 * 44)
    first = folder / "in" / "0.tif"
    results = []
    for number, options in enumerate((["--plan", "whole"], ["--tile", "24"], ["--plan", "strip"], [])):
        target = tmp_path / f"{number}.npy"
        summary = command("run", model, first, "-o", target, "--scale", 255, "--output", "raw", "--statistics", file,
                          *options)  # fmt: skip
        assert summary["statistics"]["images"] == 2
        assert summary["statistics"]["of_this_image"] is False
        assert summary["passes"] == []
        results.append(np.load(target))
    fixed = read_statistics(file)
    for result in results:
        near(result, exactile.segment(model, first, scale=255, output="raw", statistics=fixed, plan="whole"))
    assert np.abs(results[0] - exactile.segment(model, first, scale=255, output="raw")).max() > 0.01
    told = command("run", model, folder / "in", "-o", tmp_path / "out", "--scale", 255, "--statistics", file)
    assert [entry["statistics"]["file"] for entry in told] == ["s.json", "s.json"]
    shown = CliRunner().invoke(app, ["run", str(model), str(first), "-o", str(tmp_path / "l.tif"), "--scale", "255",
                                     "--statistics", str(file)])  # fmt: skip
    assert "s.json: 2 images, 7106 px; not of this image" in shown.stdout


def test_a_run_with_other_statistics_is_another_run(folder, tmp_path):
    """It is not resumed."""
    model, out = folder / "net.onnx", tmp_path / "out"
    for number in (0, 1):
        command("measure", model, folder / "in" / f"{number}.tif", "-o", tmp_path / f"{number}.json", "--no-verify")
    run = ("run", model, folder / "in", "-o", out, "--no-verify")
    command(*run, "--statistics", tmp_path / "0.json")
    assert all(entry["complete"] for entry in command(*run, "--statistics", tmp_path / "0.json", "--resume"))
    for options in (["--statistics", tmp_path / "1.json"], []):
        command(*run, *options, "--resume", fails="statistics: was")


def test_an_unfinished_run_is_gone_on_with_by_the_same_statistics(folder, tmp_path, monkeypatch):
    """To the same bytes; with others, or the image's own, it is another one."""
    model, image, target = folder / "net.onnx", folder / "in" / "0.tif", tmp_path / "labels.tif"
    for number in (0, 1):
        command("measure", model, folder / "in" / f"{number}.tif", "-o", tmp_path / f"{number}.json", "--no-verify")
    run = ("run", model, image, "--no-verify", "--tile", 24, "-o")
    fixed = ("--statistics", tmp_path / "1.json")
    command(*run, tmp_path / "straight.tif", *fixed)
    with monkeypatch.context() as before:
        before.setattr(TiffSink, "finish", stop)
        command(*run, target, *fixed, fails="what is done of")
    for options in (["--statistics", tmp_path / "0.json"], []):
        command(*run, target, *options, "--resume", fails="the unfinished run is another one")
    assert command(*run, target, *fixed, "--resume")["kept_pixels"] == 77 * 58
    assert target.read_bytes() == (tmp_path / "straight.tif").read_bytes()


def test_what_the_commands_refuse(folder, tmp_path):
    """Nothing is left behind."""
    model, image, file = folder / "net.onnx", folder / "in" / "0.tif", tmp_path / "s.json"
    command("measure", model, image, "-o", file, "--no-verify")
    target = tmp_path / "labels.tif"
    command("measure", model, image, "-o", file, fails="--overwrite")
    command("measure", folder / "attention.onnx", image, "-o", tmp_path / "a.json", fails="MatMul_scores")
    command("measure", model, folder / "none.tif", "-o", tmp_path / "a.json", fails="no such file")
    command("measure", model, image, "-o", image, "--overwrite", fails=".json file")
    run = ("run", model, image, "-o", target, "--no-verify")
    command(*run, "--statistics", file, "--scale", 255, fails="measured with net.onnx")
    command(*run, "--statistics", tmp_path / "none.json", fails="cannot be read")
    command(*run, "--statistics", image, fails="no file of statistics")
    command("run", folder / "other.onnx", *run[2:], "--statistics", file, fails="another network")
    command("run", folder / "attention.onnx", *run[2:], "--statistics", file, fails="takes no statistics")
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
