"""Images of other remainders on GPUs: as they are where engines suit them, else extended, and the summary says so."""

from __future__ import annotations

import numpy as np
import pytest

from exactile.errors import PlanError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from tests.support.emulated_gpu import deployed, emulated, picture, with_engines
from tests.support.nets import onnx_bytes
from tests.support.oracle import own_pass

NO_ENGINE = "because no engine was built for its own size"


def one_pass(net: str, image: np.ndarray, domain: tuple[int, int]) -> np.ndarray:
    """Plain ONNX Runtime over ``image`` (H, W, C), reflected at the bottom and right to ``domain``."""
    pads = [(0, larger - own) for larger, own in zip(domain, image.shape, strict=False)]
    output = own_pass(onnx_bytes(net, "integer"), np.pad(image, [*pads, (0, 0)], mode="reflect").astype(np.float32))
    assert output is not None
    return output


@pytest.mark.parametrize(
    ("net", "engines", "size", "because"),
    [
        ("low_resolution", {"tiles": [(72, 104)]}, (131, 149), NO_ENGINE),
        ("low_resolution", {"strips": [(16, 160)]}, (131, 160), ""),
        ("low_resolution", {"strips": [(16, 160)]}, (145, 157), NO_ENGINE),
        ("valid", {"tiles": [(72, 104)]}, (131, 149), NO_ENGINE),
        ("valid", {"strips": [(8, 160)]}, (75, 160), ""),
        ("valid", {"strips": [(8, 160)]}, (75, 159), NO_ENGINE),
    ],
)
def test_built_engines_at_sizes_of_other_remainders(net, engines, size, because, monkeypatch, tmp_path):
    model = with_engines(deployed(net, "raw"), tmp_path, **engines)
    image, sink = picture(model, *size), ArraySink()
    with emulated(monkeypatch, "pycuda") as (emulation, _):
        session = Session(model, device="cuda:0")
        summary = session.segment(ArraySource(image), sink)
        session.close()
        assert emulation.violations() == []
    assert summary.padded_because == because
    assert (summary.domain == size) == (not because)
    expected = one_pass(net, image, summary.domain)
    assert np.array_equal(sink.result, expected[:, : sink.result.shape[1], : sink.result.shape[2]])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("more", range(9))
def test_streams_of_every_height_on_built_engines(known, more, monkeypatch, tmp_path):
    """The last strip is of the height's own remainder, and up to a strip higher than the least."""
    model = with_engines(deployed("low_resolution", "raw"), tmp_path, strips=[(8, 160)])
    image = picture(model, 60 + more, 160)
    with emulated(monkeypatch, "pycuda") as (emulation, _):
        session = Session(model, device="cuda:0")
        with session.stream(width=160, dtype="uint8", rows=8, height=len(image) if known else None) as stream:
            pieces = [piece for start in range(0, len(image), 7) for _, piece in stream.push(image[start : start + 7])]
            pieces += [piece for _, piece in stream.close()]
        session.close()
        assert emulation.violations() == []
    assert np.array_equal(np.concatenate(pieces, axis=1), one_pass("low_resolution", image, image.shape[:2]))


def test_a_stream_whose_width_is_extended_has_room_for_all_that_the_network_gives(monkeypatch, tmp_path):
    model = with_engines(deployed("unet_d2", "raw"), tmp_path, strips=[(8, 160)])
    image = picture(model, 128, 157)
    with emulated(monkeypatch, "pycuda") as (emulation, _):
        session = Session(model, device="cuda:0")
        with session.stream(width=157, dtype="uint8", rows=8) as stream:
            pieces = [piece for _, piece in [*stream.push(image), *stream.close()]]
        session.close()
        assert emulation.violations() == []
    assert np.array_equal(np.concatenate(pieces, axis=1), one_pass("unet_d2", image, (128, 160))[:, :, :157])


def test_a_stream_of_a_width_that_no_engine_was_built_for_is_refused_at_once(monkeypatch, tmp_path):
    model = with_engines(deployed("low_resolution", "raw"), tmp_path, strips=[(8, 160)])
    with emulated(monkeypatch, "pycuda"):
        session = Session(model, device="cuda:0")
        with pytest.raises(PlanError, match=r"no engine was built for a first strip of .* x 159 pixels"):
            session.stream(width=159, dtype="uint8", rows=8)
        session.close()
