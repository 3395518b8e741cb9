"""Bugs planted in the real GPU pipeline are caught: each removed wait, early reuse, wrong pitch, forgotten release.

``caught`` runs the pipeline without any delay; the emulated driver must report it, or the labels must be wrong. The
last test plants nothing, and must find nothing.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from exactile.errors import ExactileError
from exactile.pipeline import device_compute, device_lane, device_replays
from exactile.pipeline.device_carries import DeviceCarries
from exactile.pipeline.device_lane import DeviceLane, DeviceTicket
from exactile.pipeline.device_ring import Ring
from exactile.processors.gpu import GpuProcessor
from tests.support.emulated_gpu import BINDINGS, deployed, emulated, picture, segmented, with_engines

pytestmark = pytest.mark.parametrize("binding", BINDINGS)


def caught(monkeypatch, tmp_path, binding, *, strips: bool = False, delay_s: float = 0.0) -> list[str]:
    """What is seen of a run of the pipeline as it is now."""
    engines = {"strips": [(16, 96)]} if strips else {"tiles": [(64, 96)]}
    model = with_engines(deployed("unet_d2"), tmp_path, **engines)
    image = picture(model, 300, 150)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, binding, max_delay_s=delay_s) as (emulation, _):
        try:
            wrong = not np.array_equal(segmented(model, image, device="cuda:0"), expected)
        except ExactileError as error:
            return [f"error: {error}", *(violation.kind for violation in emulation.violations())]
        seen = [violation.kind for violation in emulation.violations()] + [leak.kind for leak in emulation.leaks()]
        return seen + ["wrong labels"] * wrong


class Stream:
    """A stream that forgets to wait for events."""

    def __init__(self, stream) -> None:
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def wait(self, _event) -> None: ...


@pytest.mark.parametrize("stream", ["compute", "copy_out"])
def test_a_stream_that_does_not_wait_for_the_one_before(binding, stream, monkeypatch, tmp_path):
    """Without the event between copy in and compute, or compute and copy out, there is a race."""
    original = Ring.__init__

    def careless(self, *arguments) -> None:
        original(self, *arguments)
        setattr(self, stream, Stream(getattr(self, stream)))

    monkeypatch.setattr(Ring, "__init__", careless)
    assert "race" in caught(monkeypatch, tmp_path, binding)


def test_results_that_are_taken_before_they_are_there(binding, monkeypatch, tmp_path):
    """A ticket that does not wait gives pixels of the tile before, and a slot that is still in use."""

    def hasty(self):
        return self.lane.results(self.slot, self.load)

    monkeypatch.setattr(DeviceTicket, "results", hasty)
    monkeypatch.setattr(DeviceTicket, "spans", lambda _self: [])
    seen = caught(monkeypatch, tmp_path, binding, delay_s=0.002)
    assert "race" in seen
    assert "wrong labels" in seen


def test_a_slot_that_is_used_again_too_early(binding, monkeypatch, tmp_path):
    """A slot given back when it is put on the streams: its input is overwritten while it is read."""
    original = DeviceLane.start

    def early(self, load):
        ticket = original(self, load)
        self._slots._items.append(ticket.slot)
        return ticket

    monkeypatch.setattr(DeviceLane, "start", early)
    monkeypatch.setattr(DeviceLane, "finish", lambda self, _slot, load: self.free(load.staged))
    monkeypatch.setattr(DeviceTicket, "spans", lambda _self: [])
    assert "race" in caught(monkeypatch, tmp_path, binding, delay_s=0.002)


def test_staging_buffers_that_are_filled_while_they_are_copied_from(binding, monkeypatch, tmp_path):
    """A staging buffer given back before the copy in is done gets the next tile's pixels under the copy."""
    original = DeviceLane.start

    def early(self, load):
        ticket = original(self, load)
        self.free(load.staged)
        return ticket

    monkeypatch.setattr(DeviceLane, "start", early)
    monkeypatch.setattr(DeviceLane, "finish", lambda self, slot, _load: self._slots.put(slot))
    monkeypatch.setattr(device_compute, "staging_buffers", lambda _lanes, _slots: 1)
    assert "wrong labels" in caught(monkeypatch, tmp_path, binding, delay_s=0.004)


@pytest.mark.parametrize("more", [-1, 1])
def test_a_crop_of_the_wrong_pitch(binding, more, monkeypatch, tmp_path):
    """Rows that lie a byte nearer or further: wrong labels, or an access out of bounds."""
    original = device_lane.Window
    monkeypatch.setattr(
        device_lane, "Window", lambda **fields: replace(original(**fields), pitch_bytes=fields["pitch_bytes"] + more)
    )
    seen = caught(monkeypatch, tmp_path, binding)
    assert "wrong labels" in seen or "out of bounds" in seen or any("error" in one for one in seen)


@pytest.mark.parametrize("name", ["stream", "event", "device", "pinned"])
def test_what_a_ring_forgets_the_device_releases(binding, name, monkeypatch, tmp_path):
    """A ring that does not own one kind of its things: the device's own registry closes it."""
    original = Ring._own

    def forgetful(self, thing):
        return thing if name in type(thing).__name__.lower() else original(self, thing)

    monkeypatch.setattr(Ring, "_own", forgetful)
    assert caught(monkeypatch, tmp_path, binding) == []


def test_a_session_that_is_not_closed_leaks(binding, monkeypatch, tmp_path):
    """Everything that lives on a GPU is seen where nobody closes it."""
    if binding == "pycuda":
        pytest.skip("pycuda's objects release themselves when they are collected")
    monkeypatch.setattr(GpuProcessor, "close", lambda _self: None)
    assert set(caught(monkeypatch, tmp_path, binding)) >= {"stream", "event", "device", "pinned", "context"}


def test_carries_that_do_not_take_turns(binding, monkeypatch, tmp_path):
    """A strip that writes the carries it reads."""
    original = DeviceCarries.addresses

    def same(self, role, band):
        found = original(self, role, band)
        self._sets[band] = self._sets[band][::-1]
        return found

    monkeypatch.setattr(DeviceCarries, "addresses", same)
    assert "wrong labels" in caught(monkeypatch, tmp_path, binding, strips=True)


def test_a_graph_that_is_launched_for_another_slot(binding, monkeypatch, tmp_path):
    """Graphs kept by shape instead of by addresses would compute on the slot that was captured."""
    if binding != "cuda.bindings":
        pytest.skip("pycuda does not capture")
    original = device_replays.Replays.enqueue

    def by_shape(self, network, addresses, rows) -> None:
        def enqueue(_, **options) -> None:
            network.enqueue(addresses, **options)

        original(self, SimpleNamespace(capturable=True, enqueue=enqueue), {}, rows)

    monkeypatch.setattr(device_replays.Replays, "enqueue", by_shape)
    seen = caught(monkeypatch, tmp_path, binding)
    assert "wrong labels" in seen


def test_nothing_is_found_where_nothing_was_planted(binding, monkeypatch, tmp_path):
    """The pipeline as it is, tiles and strips, with delays and without."""
    for strips in (False, True):
        for delay_s in (0.0, 0.002):
            assert caught(monkeypatch, tmp_path, binding, strips=strips, delay_s=delay_s) == []
