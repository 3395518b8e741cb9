"""Pushed rows: the results of a stream are those of one pass over the complete image."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.errors import BudgetError, ChannelError, PlanError, StreamError
from exactile.machine.memory import settled_resident_bytes
from exactile.plan.border import BORDERS
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.open import open_sink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.nets import NETS, onnx_bytes

MEMORY = 8 << 30
"""The budget counts the whole process, in which other tests have been before."""


@cache
def session(name: str, output: str = "raw", memory: int = MEMORY) -> Session:
    network = prepare_network(onnx.load_from_string(onnx_bytes(name)), name=name)
    return Session(deploy(network, image_dtype="uint8", output=output), memory_bytes=memory)


def image_for(name: str, height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(height)
    return generator.integers(0, 256, (height, width, NETS[name].channels), dtype=np.uint8)


def whole(name: str, image: np.ndarray, border: str = "model", output: str = "raw") -> np.ndarray:
    sink = ArraySink()
    session(name, output).segment(ArraySource(image), sink, plan="whole", border=border)
    return sink.result


def streamed(name: str, image: np.ndarray, pushes: list[int], *, output: str = "raw", **options) -> np.ndarray:
    """Push in pieces of the given sizes, over and over; the results must come in order, without a gap."""
    pieces, expected, start = [], 0, 0
    with session(name, output).stream(width=image.shape[1], dtype="uint8", **options) as stream:
        while start < len(image):
            for count in pushes:
                pieces += stream.push(image[start : start + count])
                start += count
        pieces += stream.close()
    for first, piece in pieces:
        assert first == expected
        expected += piece.shape[-2]
    return np.concatenate([piece for _, piece in pieces], axis=-2)


@pytest.mark.parametrize(
    "name", ["unet_d2", "unet_transpose3_d2", "valid", "super_resolution", "low_resolution", "dilated"]
)
@pytest.mark.parametrize("border", BORDERS)
def test_a_stream_gives_the_whole_pass(name, border):
    image = image_for(name, 131, 53)
    assert np.array_equal(streamed(name, image, [7], rows=8, border=border), whole(name, image, border))


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["unet_d2", "valid", "super_resolution", "asymmetric"]),
    st.integers(12, 90),
    st.integers(12, 40),
    st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any),
    st.integers(1, 5),
    st.sampled_from(BORDERS),
)
def test_any_height_in_pieces_of_any_size(name, height, width, pushes, strides, border):
    """Also images that end before the first strip could run."""
    image = image_for(name, height, width)
    rows = strides * NETS[name].stride
    assert np.array_equal(streamed(name, image, pushes, rows=rows, border=border), whole(name, image, border))


def test_results_come_as_soon_as_they_are_final():
    """Behind the newest row lie the halo, one strip, and the rows kept for the last strip: no more."""
    image, stride, rows, worst = image_for("unet_d2", 400, 64), 4, 8, 0
    with session("unet_d2").stream(width=64, dtype="uint8", rows=rows) as stream:
        given = 0
        for pushed in range(1, 401):
            given += sum(piece.shape[-2] for _, piece in stream.push(image[pushed - 1 : pushed]))
            worst = max(worst, pushed - given) if given else worst
    assert worst <= NETS["unet_d2"].reach.bottom + rows + 2 * stride


def test_few_rows_are_kept_however_many_are_pushed_at_once():
    image = image_for("unet_d2", 3000, 64)
    with session("unet_d2").stream(width=64, dtype="uint8", rows=16) as stream:
        most = 0
        for start in range(0, 3000, 500):
            stream.push(image[start : start + 500])
            most = max(most, sum(len(piece) for piece in stream._kept._pieces))
    assert most < 200


def test_bands_where_the_width_does_not_fit():
    """The least budget for strips of this width makes bands; the labels stay the same."""
    image = image_for("unet_d4", 260, 700)
    roomy = session("unet_d4", "labels")
    process_bytes = settled_resident_bytes()
    for extra in range(0, 400, 4):
        tight = Session(roomy._model, memory_bytes=process_bytes + (extra << 20))
        try:
            stream = tight.stream(width=700, dtype="uint8", rows=16)
        except BudgetError:
            continue
        break
    assert len(stream._columns.starts) > 1
    with stream:
        pieces = [piece for start in range(0, 260, 20) for _, piece in stream.push(image[start : start + 20])]
        pieces += [piece for _, piece in stream.close()]
    assert np.array_equal(np.concatenate(pieces), whole("unet_d4", image, output="labels"))


@pytest.mark.parametrize("height", [301, None], ids=["known", "unknown"])
@pytest.mark.parametrize(("ending", "output"), [("tif", "labels"), ("npy", "labels"), ("npy", "raw")])
def test_the_result_is_written_while_rows_arrive(ending, output, height, tmp_path):
    """Under its name only when complete; nothing else stays."""
    image, target = image_for("unet_d2", 301, 130), tmp_path / f"labels.{ending}"
    sink = open_sink(target)
    with session("unet_d2", output).stream(width=130, dtype="uint8", rows=16, sink=sink, height=height) as stream:
        for start in range(0, 301, 20):
            stream.push(image[start : start + 20])
            assert not target.exists()
    written = tifffile.imread(target) if ending == "tif" else np.load(target)
    assert np.array_equal(written, whole("unet_d2", image, output=output))
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("height", [100, None])
def test_a_failing_camera_leaves_nothing_behind(height, tmp_path):
    sink = open_sink(tmp_path / "labels.tif")

    def scan() -> None:
        with session("unet_d2", "labels").stream(width=64, dtype="uint8", rows=16, sink=sink, height=height) as stream:
            stream.push(image_for("unet_d2", 50, 64))
            raise OSError("camera")

    with pytest.raises(OSError, match="camera"):
        scan()
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused_with_both_values():
    opened = session("unet_d2")
    with pytest.raises(StreamError, match=r"float32.*uint8"):
        opened.stream(width=64, dtype="float32")
    with opened.stream(width=64, dtype="uint8") as stream:
        with pytest.raises(StreamError, match=r"65 pixels.*width 64"):
            stream.push(np.zeros((2, 65, 3), np.uint8))
        with pytest.raises(ChannelError, match="4 channel"):
            stream.push(np.zeros((2, 64, 4), np.uint8))
        with pytest.raises(StreamError, match="uint16"):
            stream.push(np.zeros((2, 64, 3), np.uint16))
        with pytest.raises(StreamError, match="shape"):
            stream.push(np.zeros((2, 64), np.uint8))
        stream.push(np.zeros((40, 64, 3), np.uint8))
        assert stream.close()
        assert stream.close() == []
        with pytest.raises(StreamError, match="closed"):
            stream.push(np.zeros((2, 64, 3), np.uint8))


def test_a_wrong_announced_height_is_an_error(tmp_path):
    for pushed, message in ((90, r"90 rows.*100"), (101, r"101 rows.*100")):
        sink = open_sink(tmp_path / "labels.npy")
        with (
            pytest.raises(StreamError, match=message),
            session("unet_d2", "labels").stream(width=64, dtype="uint8", sink=sink, height=100) as stream,
        ):
            stream.push(np.zeros((pushed, 64, 3), np.uint8))
        assert list(tmp_path.iterdir()) == []


def test_a_sink_of_an_empty_stream_is_an_error(tmp_path):
    stream = session("unet_d2", "labels").stream(width=64, dtype="uint8", sink=open_sink(tmp_path / "labels.npy"))
    with pytest.raises(StreamError, match="no rows"), stream:
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_empty_stream_gives_nothing():
    with session("unet_d2").stream(width=64, dtype="uint8") as stream:
        assert stream.close() == []


def test_a_budget_too_small_says_how_much_would_do():
    with pytest.raises(BudgetError, match="MiB"):
        Session(session("unet_d2")._model, memory_bytes=1 << 20).stream(width=64, dtype="uint8")


def test_a_network_without_strips_says_why():
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="net")
    deployed = deploy(network, image_dtype="uint8", strips=False)
    with pytest.raises(PlanError, match="without strips"):
        Session(deployed, memory_bytes=MEMORY).stream(width=64, dtype="uint8")
