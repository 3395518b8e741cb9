"""Normalisation by the whole image: what numpy computes of all samples at once, from a stream, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import exactile
from exactile.contract import ImageStatistics
from exactile.errors import OptionError, SourceError
from exactile.image_statistics.measure import Normalizers, measure, passes
from exactile.sources.array import ArraySource
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.command import exactile as command
from tests.support.nets import onnx_bytes, onnx_file

ZSCORE = ImageStatistics(kind="zscore")
PERCENTILE = ImageStatistics(kind="percentile", low=1, high=99.8)
TYPES = ["uint8", "uint16", "float32"]


def expected(image: np.ndarray, wanted: ImageStatistics) -> tuple[np.ndarray, np.ndarray]:
    samples = image.reshape(-1, image.shape[2]).astype(np.float64)
    if not wanted.per_channel:
        samples = np.repeat(samples.reshape(-1, 1), image.shape[2], axis=1)
    if wanted.kind == "zscore":
        return samples.mean(0), samples.std(0) + wanted.epsilon
    low, high = np.percentile(samples, [wanted.low, wanted.high], axis=0)
    return low, high - low + wanted.epsilon


def picture(dtype: str, height: int = 613, width: int = 471, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(3)
    noise = generator.normal(size=(height, width, channels)) * [0.05, 0.2, 0.1][:channels] + 0.5
    if dtype == "float32":
        return (noise * 1000 - 300).astype(dtype)
    return np.clip(noise * np.iinfo(dtype).max, 0, np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["zscore", "percentile"])
def test_a_stream_gives_what_numpy_gives(dtype, per_channel, kind, monkeypatch):
    monkeypatch.setattr("exactile.image_statistics.measure.BLOCK_BYTES", 100_000)
    wanted = ImageStatistics(kind=kind, per_channel=per_channel)
    image = picture(dtype)
    found = measure(ArraySource(image), wanted)
    for values, truth in zip((found.offset, found.scale), expected(image, wanted), strict=True):
        assert np.abs(values - truth).max() <= 1e-6 * np.abs(truth).max()


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    )
    | hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    st.floats(0, 99),
    st.booleans(),
)
def test_percentiles_of_small_images_are_exact(image, low, per_channel):
    """Ranks between samples, equal samples, negative samples, one pixel."""
    wanted = ImageStatistics(kind="percentile", low=low, high=100, epsilon=1e-6, per_channel=per_channel)
    found = measure(ArraySource(image), wanted)
    offset, scale = expected(image, wanted)
    size = max(1.0, float(np.abs(image.astype(np.float64)).max()))
    assert np.abs(found.offset - offset).max() <= 1e-9 * size
    assert np.abs(found.scale - scale).max() <= 1e-9 * size


def test_moments_far_from_zero_do_not_cancel():
    image = (np.random.default_rng(0).normal(size=(400, 300, 1)) + 30_000).astype(np.float32)
    found = measure(ArraySource(image), ZSCORE)
    assert found.scale[0] == pytest.approx(image.astype(np.float64).std() + 1e-6, rel=1e-9)


def test_an_even_image_is_not_divided_by_zero():
    found = measure(ArraySource(np.full((20, 20, 2), 7, np.uint8)), ZSCORE)
    assert found.scale.tolist() == [1e-6, 1e-6]
    assert found.offset.tolist() == [7, 7]


def test_samples_that_are_no_numbers_are_refused():
    image = np.ones((300, 20, 1), np.float32)
    image[290, 3] = np.nan
    with pytest.raises(SourceError, match="not finite"):
        measure(ArraySource(image), ZSCORE)


class Endless:
    """A source of any height that holds nothing."""

    def __init__(self, height: int, dtype: str) -> None:
        self.height, self.width, self.channels, self.dtype = height, 1024, 3, np.dtype(dtype)

    def cache_bytes(self, plan) -> int:
        return 0

    def prepare(self, plan, *, cache_bytes) -> None:
        pass

    def read(self, box, out) -> None:
        out[...] = (np.arange(box.y.start, box.y.stop)[:, None, None] % 251).astype(self.dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("wanted", [ZSCORE, PERCENTILE])
def test_memory_does_not_grow_with_the_image(dtype, wanted):
    peaks = []
    for height in (2_000, 16_000):
        tracemalloc.start()
        measure(Endless(height, dtype), wanted)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= peaks[0] * 1.05 + 1e6
    assert peaks[1] < 100e6


def reference(model: bytes, image: np.ndarray, wanted: ImageStatistics) -> np.ndarray:
    """The network alone over numpy's normalisation of the whole image; (C, H, W)."""
    offset, scale = expected(image, wanted)
    normalised = ((image - offset) / scale).astype(np.float32).transpose(2, 0, 1)[None]
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: normalised})
    return result[0]


@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
@pytest.mark.parametrize("wanted", [ZSCORE, PERCENTILE])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_plan_normalises_by_the_whole_image(plan, wanted, dtype):
    model, image = onnx_bytes("unet_d2"), picture(dtype, 204, 188)
    network = prepare_network(onnx.load_from_string(model), name="unet")
    deployed = deploy(network, image_dtype=dtype, normalization=Normalization(statistics=wanted), output="raw")
    sink = exactile.ArraySink()
    tile = (96, 96) if plan != "whole" else None
    summary = exactile.Session(deployed).segment(ArraySource(image), sink, plan=plan, tile=tile)
    truth = reference(model, image, wanted)
    assert np.abs(sink.result - truth).max() <= 2e-5 * np.abs(truth).max()
    assert summary.seconds.measure > 0


def test_a_bundle_normalises_the_same_way_and_says_so(tmp_path):
    model = onnx_file(tmp_path, "unet_d1_rgb")
    wanted = ImageStatistics(kind="percentile", low=2, high=98, per_channel=False)
    convert(model, tmp_path / "b", image_dtype="uint16", normalization=Normalization(statistics=wanted), output="raw")
    opened = exactile.open_bundle(tmp_path / "b")
    assert opened.model.contract.image.statistics == wanted
    image = picture("uint16", 120, 100)
    truth = reference(model.read_bytes(), image, wanted)
    for plan in ("tile", "strip"):
        sink = exactile.ArraySink()
        exactile.Session(opened.model).segment(ArraySource(image), sink, plan=plan)
        assert np.abs(sink.result - truth).max() <= 2e-5 * np.abs(truth).max()
    done = command("info", tmp_path / "b", "--test")
    assert done.returncode == 0
    assert "percentiles 2 to 98 of all channels of the whole image" in done.stdout


def test_a_stream_takes_what_was_measured_before(tmp_path):
    model = onnx_bytes("unet_d2")
    image = picture("uint8", 204, 188)
    network = prepare_network(onnx.load_from_string(model), name="unet")
    deployed = deploy(network, image_dtype="uint8", normalization=Normalization(statistics=ZSCORE), output="raw")
    session = exactile.Session(deployed)
    with pytest.raises(OptionError, match="give normalizers"):
        session.stream(width=188, dtype="uint8", rows=32)
    sink = exactile.ArraySink()
    session.segment(ArraySource(image), sink, plan="strip", tile=(32, 188))
    with session.stream(width=188, dtype="uint8", rows=32, normalizers=session.measure(ArraySource(image))) as stream:
        pieces = [piece for start in range(0, 204, 50) for _, piece in stream.push(image[start : start + 50])]
        pieces += [piece for _, piece in stream.close()]
    assert np.array_equal(np.concatenate(pieces, 1), sink.result)


def test_normalizers_that_do_not_fit_are_refused():
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="unet")
    fixed = exactile.Session(deploy(network, image_dtype="uint8"))
    image = ArraySource(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(OptionError, match="fixed numbers"):
        fixed.measure(image)
    one = Normalizers(offset=np.zeros(1), scale=np.ones(1))
    with pytest.raises(OptionError, match="takes no normalizers"):
        fixed.segment(image, exactile.ArraySink(), normalizers=one)
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="unet")
    measured = exactile.Session(deploy(network, image_dtype="uint8", normalization=Normalization(statistics=ZSCORE)))
    with pytest.raises(OptionError, match="each of 3 channel"):
        measured.segment(image, exactile.ArraySink(), normalizers=one)


def test_an_image_is_read_once_or_twice():
    for dtype in TYPES:
        source = ArraySource(picture(dtype, 50, 60))
        for wanted in (ZSCORE, PERCENTILE):
            read = []
            measure(source, wanted, read.append)
            assert sum(read) == 50 * 60 * passes(source, wanted)
            assert passes(source, wanted) == (2 if dtype == "float32" and wanted.kind == "percentile" else 1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--normalize", "zscore", "--scale", "255"), "--scale: fixed numbers exclude"),
        (("--percentiles", "1,99"), "belongs to --normalize percentile"),
        (("--normalize", "percentile", "--percentiles", "9,1"), "two numbers from 0 to 100"),
        (("--joint-channels",), "belongs to --normalize"),
    ],
)
def test_options_that_contradict_each_other(tmp_path, options, says):
    model = onnx_file(tmp_path, "unet_d1_rgb")
    np.save(tmp_path / "image.npy", np.zeros((64, 64, 3), np.uint8))
    done = command("run", model, tmp_path / "image.npy", "-o", tmp_path / "labels.tif", *options)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
