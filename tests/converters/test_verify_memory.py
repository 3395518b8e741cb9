"""``verify`` within a budget of memory: what is compared is as large as it allows, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from exactile.errors import BudgetError, PlanError
from exactile.machine.memory import resident_bytes
from exactile.sources.array import ArraySource
from exactile_converters.plain_runs import difference
from exactile_converters.plain_runs.difference import compare, probability_rmse
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.verify import room, verify
from exactile_converters.verify import verification as verification_module
from exactile_converters.verify.pixels import LEAST_ADVANCE_PX, chosen_pixels, noise_size, suitable_tiles
from exactile_converters.verify.verification import AXES
from tests.converters.test_graph_io import model_of, weights


def far(channels: int = 8, dilation: int = 48) -> bytes:
    """A halo of twice ``dilation`` by few weights."""
    nodes = [
        ("Conv", ["image", "w0"], ["a"], {"pads": [1] * 4}),
        ("Relu", ["a"], ["b"], {}),
        ("Conv", ["b", "w1"], ["c"], {"pads": [dilation] * 4, "dilations": [dilation] * 2}),
        ("Conv", ["c", "w1"], ["d"], {"pads": [dilation] * 4, "dilations": [dilation] * 2}),
        ("Conv", ["d", "w2"], ["out"], {}),
    ]
    constants = {"w0": weights(channels, 3, 3, 3), "w1": weights(channels, channels, 3, 3)}
    return model_of(nodes, {**constants, "w2": weights(3, channels, 1, 1)})


def network(model: bytes = b""):
    return prepare_network(onnx.load_from_string(model or far()), name="far")


def test_noise_is_smaller_where_less_memory_does_and_still_holds_three_tiles_each_way(monkeypatch):
    """Zones shrink to two strides; halo and seams stay."""
    roomy = verify(network())
    monkeypatch.setattr(room, "NOISE_BYTES", 0)
    tight = verify(network())
    sizes = suitable_tiles(tight.geometry)
    assert (roomy.comparison.tile, tight.comparison.tile) == (sizes[0], sizes[-1])
    assert tight.comparison.pixels.size == noise_size(tight.geometry, sizes[-1])
    assert np.prod(tight.comparison.pixels.size) < 0.6 * np.prod(roomy.comparison.pixels.size)
    assert tight.comparison.tiles >= 9
    assert tight.holds
    assert roomy.holds


def test_tiles_that_suit_begin_with_room_and_end_with_narrow_zones():
    claimed = network().trace().geometry
    tiles = suitable_tiles(claimed)
    halo = claimed.y.before + claimed.y.after
    assert tiles[0] == (halo + halo // 2,) * 2
    assert tiles[-1] == (halo + LEAST_ADVANCE_PX,) * 2
    assert tiles == sorted(tiles, reverse=True)


@pytest.mark.parametrize("options", [{}, {"tile": (256, 256)}, {"with_sweep": True}])
def test_too_little_memory_is_refused_with_what_would_do(options):
    with pytest.raises(BudgetError, match=r"needs about .* are allowed; raise --memory") as refused:
        verify(network(), memory_bytes=resident_bytes() + (8 << 20), **options)
    assert refused.value.least_bytes > resident_bytes()
    assert ("smaller --tile" in str(refused.value)) == ("tile" in options)


def test_weights_that_do_not_fit_are_refused_before_anything_is_made():
    with pytest.raises(BudgetError, match=r"for the weights, .* raise --memory"):
        verify(network(), memory_bytes=1 << 20)


def test_as_much_of_an_image_is_compared_as_memory_allows(monkeypatch):
    monkeypatch.setattr(room.Room, "needed", lambda _room, size: size[0] * size[1])
    image = np.random.default_rng(0).integers(0, 256, (600, 500, 3), dtype=np.uint8)
    generous = 1 << 40
    monkeypatch.setattr(verification_module, "chosen_pixels", within(300 * 300))
    found = verify(network(), source=ArraySource(image), memory_bytes=generous)
    assert found.comparison.pixels.size[0] * found.comparison.pixels.size[1] <= 300 * 300
    assert all(side < size for side, size in zip(found.comparison.tile, found.comparison.pixels.size, strict=True))
    assert found.holds
    monkeypatch.setattr(verification_module, "chosen_pixels", within(150 * 150))
    with pytest.raises(BudgetError, match=r"the part of the image that .* allow, is one tile"):
        verify(network(), source=ArraySource(image), memory_bytes=generous)
    with pytest.raises(PlanError, match="no seam"):
        verify(network(), source=ArraySource(image[:150, :150]), memory_bytes=generous)


def within(pixels: int):
    """``chosen_pixels`` with so many pixels in place of bytes."""

    def chosen(source, geometry, tiles, given, **options):
        return chosen_pixels(source, geometry, tiles, room.Room(model=given.model, allowed_bytes=pixels), **options)

    return chosen


def test_the_command_keeps_within_memory(tmp_path):
    """One pass over noise of the usual size takes several times as much as is allowed beside the process itself."""
    (tmp_path / "far.onnx").write_bytes(far(channels=32, dilation=150))
    script = (
        "import sys; from exactile.cli.main import app; from exactile.machine.memory import peak_resident_bytes\n"
        "try: app(sys.argv[1:])\n"
        "finally: print(peak_resident_bytes(), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "verify", str(tmp_path / "far.onnx"), "--json", "--memory", "640MiB"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[-1]) <= 640 << 20
    found = json.loads(done.stdout)
    assert found["holds"] is True
    assert found["tiled_against_whole"]["tiles"] >= 9


def test_progress_is_that_of_the_whole_proof():
    """It never falls, ends at the end, and what was expected is about what there was to do."""
    seen = []
    verify(network(), with_sweep=True, progress=lambda *told: seen.append(told))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert (
        stages[-4:] == ["whole pass", "tiles", "halo sweep", "alignment sweep"][: len(stages[-4:])] or "tiles" in stages
    )
    assert all(f"dependencies along {axis}" in stages for axis in AXES)
    done = [done for _, done, _ in seen]
    totals = [total for _, _, total in seen]
    assert done == sorted(done)
    assert done[-1] == totals[-1]
    assert 0.7 <= done[-2] / totals[0] <= 1.1


@pytest.mark.parametrize("probability", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_maps_compared_in_blocks_are_compared_as_at_once(monkeypatch, probability, channels):
    generator = np.random.default_rng(0)
    whole = generator.standard_normal((channels, 37, 23)).astype(np.float32)
    tiled = whole + (generator.random(whole.shape) < 0.05) * generator.standard_normal(whole.shape).astype(np.float32)
    tiled[0, 30, 4] = whole[0, 30, 4] = np.nan
    at_once = compare(tiled, whole, probability=probability)
    error = probability_rmse(tiled[:, :30], whole[:, :30], already=probability)
    monkeypatch.setattr(difference, "BLOCK_VALUES", 5 * 23 * channels)
    found = compare(tiled, whole, probability=probability)
    for name in ("different_labels", "ties", "max_abs", "tolerance", "different_values", "first"):
        assert getattr(found, name) == getattr(at_once, name)
    assert found.rmse == pytest.approx(at_once.rmse)
    assert np.array_equal(found.error_map, at_once.error_map)
    assert probability_rmse(tiled[:, :30], whole[:, :30], already=probability) == pytest.approx(error)
