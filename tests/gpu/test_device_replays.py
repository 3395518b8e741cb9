"""Captured inferences: enough of them for every slot, band and turn; beyond that the work is enqueued, never lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from exactile.pipeline.device_replays import MOST_REPLAYS, Replays, replays_of
from exactile.processors.station import SLOTS
from tests.support.emulated_gpu import deployed, emulated, picture, segmented, with_engines


class Network:
    """Writes down what it works on."""

    capturable = True

    def __init__(self, done: list[int]) -> None:
        self.done = done

    def enqueue(self, addresses, *, rows: int, stream: int) -> None:
        assert (rows, stream) == (8, 7)
        self.done.append(addresses["image"])


class Stream:
    """Captures: what would be done is kept, and done when it is launched."""

    handle = 7

    def __init__(self, done: list[int]) -> None:
        self.done, self.captures, self.open = done, 0, 0

    def capture(self, work) -> Captured:
        before = len(self.done)
        work()
        kept = self.done[before:]
        del self.done[before:]
        self.captures, self.open = self.captures + 1, self.open + 1
        return Captured(self, kept)

    def record(self, _event) -> None: ...
    def wait(self, _event) -> None: ...
    def synchronize(self) -> None: ...
    def copy_in(self, *_) -> None: ...
    def copy_out(self, *_) -> None: ...
    def close(self) -> None: ...


class Captured:
    def __init__(self, stream: Stream, kept: list[int]) -> None:
        self.stream, self.kept = stream, kept

    def launch(self, stream) -> None:
        assert stream is self.stream
        stream.done.extend(self.kept)

    def close(self) -> None:
        self.stream.open -= 1


@pytest.mark.parametrize(("most", "addresses"), [(4, 4), (4, 5), (4, 40), (64, 65)])
def test_beyond_the_most_graphs_work_is_enqueued_and_nothing_is_done_twice_or_left_out(most, addresses):
    done: list[int] = []
    stream, network = Stream(done), Network(done)
    replays = Replays(stream, most=most)
    wanted = list(range(addresses)) * 3
    for address in wanted:
        replays.enqueue(network, {"image": address}, 8)
    assert done == wanted
    assert stream.captures == stream.open == min(most, addresses)
    replays.clear()
    assert stream.open == 0


@pytest.mark.parametrize("bands", [0, 1, 3, 8, 32])
def test_every_slot_with_every_turn_of_every_band_has_a_graph(bands):
    used = set(itertools.product(range(SLOTS), range(max(1, bands)), range(2)))
    assert replays_of(SLOTS, bands) == len(used) <= MOST_REPLAYS


def test_more_bands_than_graphs_are_segmented_all_the_same(monkeypatch, tmp_path):
    """With graphs for one of three bands the labels are those of the CPU."""
    monkeypatch.setattr("exactile.processors.station.replays_of", lambda slots, _bands: slots * 2)
    model = with_engines(deployed("unet_d1"), tmp_path, strips=[(16, 48)])
    image = picture(model, 400, 100)
    expected = segmented(model, image, plan="whole")
    with emulated(monkeypatch, "cuda.bindings") as (emulation, _):
        assert np.array_equal(segmented(model, image, device="cuda:0", plan="strip", tile=(16, 48)), expected)
        assert 0 < emulation.calls()["cuGraphLaunch"] < 3 * 400 // 16
        assert emulation.violations() == []
        assert emulation.leaks() == []
