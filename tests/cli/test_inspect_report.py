"""What `exactile inspect` tells beyond the verdict: cost, tiles, where the halo comes from, and its picture."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from exactile_converters.deploy import deploy
from exactile_converters.inspection import inspect_network
from exactile_converters.prepare.from_onnx import prepare_network
from tests.cli.test_failures import squeeze_and_excite
from tests.support.command import forked
from tests.support.nets import NETS, onnx_bytes, onnx_file, random_image, torch_net


def inspected(model: onnx.ModelProto | str):
    return inspected_once(model) if isinstance(model, str) else inspect_network(prepare_network(model, name="net"))


@cache  # many tests look at the same networks
def inspected_once(name: str):
    return inspect_network(prepare_network(onnx.load_from_string(onnx_bytes(name)), name="net"))


def multiplications(name: str, size: int) -> int:
    """Multiply-accumulates of one pass in PyTorch, counted by hooks on the layers."""
    counted = []

    def count(layer, inputs, output):
        pixels = output if isinstance(layer, nn.Conv2d) else inputs[0]
        counted.append(layer.weight.numel() * pixels.shape[2] * pixels.shape[3])

    net = torch_net(name)
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        net(random_image(name, size, size))
    for handle in handles:
        handle.remove()
    return sum(counted)


@pytest.mark.parametrize("name", [name for name in NETS if name != "valid"])
def test_cost_is_what_pytorch_multiplies(name):
    size = 2 * NETS[name].stride * 4
    assert inspected(name).cost.mac_per_pixel == Fraction(multiplications(name, size), size * size)


def test_cost_of_a_valid_network_is_that_of_the_inside_of_an_image():
    """What the borders take away grows with the size, not with its square: second differences leave it out."""
    small, middle, large = (multiplications("valid", size) for size in (64, 128, 192))
    assert inspected("valid").cost.mac_per_pixel == Fraction(large - 2 * middle + small, 2 * 64**2)


@pytest.mark.parametrize("name", ["unet_plain_d2", "dilated", "valid", "super_resolution"])
def test_parameters_are_pytorchs(name):
    """Networks whose export folds nothing away."""
    assert inspected(name).cost.parameters == sum(one.numel() for one in torch_net(name).parameters())


def graph(nodes, constants=(), dims=(1, 4, "h", "w"), out=(1, "c", "i", "j")) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_groups_batch_normalisation_and_products_over_channels_are_counted():
    ones = {name: np.ones(8, np.float32) for name in ("scale", "bias", "mean", "variance")}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], group=2, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *ones], ["b"]),
        helper.make_node("Transpose", ["b"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["t", "m"], ["p"]),
        helper.make_node("Transpose", ["p"], ["out"], perm=[0, 3, 1, 2]),
    ]
    constants = [("w", np.ones((8, 2, 3, 3), np.float32)), ("m", np.ones((8, 5), np.float32)), *ones.items()]
    cost = inspected(graph(nodes, constants)).cost
    assert cost.mac_per_pixel == 8 * 2 * 9 + 8 * 5
    assert cost.parameters == 144 + 40 + 16


def test_cost_of_a_network_that_cannot_be_tiled_is_that_of_one_pass():
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["g"]),
        helper.make_node("Conv", ["g", "v"], ["s"], kernel_shape=[1, 1]),
        helper.make_node("Mul", ["a", "s"], ["out"]),
    ]
    constants = [("w", np.ones((8, 4, 1, 1), np.float32)), ("v", np.ones((8, 8, 1, 1), np.float32))]
    free = inspected(graph(nodes, constants))
    assert free.obstacles
    assert free.profile is free.memory is None
    assert free.cost.at == (1024, 1024)
    assert free.cost.mac_per_pixel == 32 + Fraction(64, 1024**2)
    fixed = inspected(graph(nodes, constants, dims=(1, 4, 20, 30)))
    assert fixed.cost.at == (20, 30)
    assert fixed.cost.mac_per_pixel == 32 + Fraction(64, 600)


def test_unknown_operators_in_the_way_leave_the_cost_unknown():
    nodes = [
        helper.make_node("Swirl", ["image"], ["a"], domain="acme"),
        helper.make_node("Conv", ["a", "w"], ["out"], kernel_shape=[1, 1]),
    ]
    model = graph(nodes, [("w", np.ones((8, 4, 1, 1), np.float32))])
    model.opset_import.append(helper.make_opsetid("acme", 1))
    cost = inspected(model).cost
    assert cost.mac_per_pixel is None
    assert cost.parameters == 32


@pytest.mark.parametrize("name", NETS)
def test_the_path_adds_up_to_the_widest_halo(name):
    found, reach = inspected(name), NETS[name].reach
    lost = -NETS[name].size_constant
    widest = max(reach.top + lost // 2, reach.bottom - lost // 2, reach.left + lost // 2, reach.right - lost // 2)
    steps = found.profile.steps
    assert sum(step.adds for step in steps) == steps[-1].cumulative == widest
    assert [step.cumulative for step in steps] == list(np.cumsum([step.adds for step in steps]))
    ends = [max(-layer.start, layer.stop - found.profile.stride_px) for layer in found.profile.layers]
    assert ends[-1] == widest
    assert all(step.cumulative <= widest for step in steps)


def test_the_path_of_a_small_unet_on_paper():
    """Two 3x3 convolutions at each level; a 2x2 up-convolution costs where a box is not aligned below."""
    steps = inspected("unet_d1").profile.steps
    assert [(step.op, step.adds) for step in steps] == [
        ("Conv", 1),
        ("Conv", 1),
        ("Conv", 2),
        ("Conv", 2),
        ("Conv", 1),
        ("Conv", 1),
    ]
    assert [(step.op, step.adds) for step in inspected("super_resolution").profile.steps] == [
        ("ConvTranspose", 1),
        ("Conv", 1),
        ("Conv", 1),
    ]


def test_the_path_follows_the_branch_that_reaches_furthest():
    nodes = [
        helper.make_node("Conv", ["image", "w3"], ["a"], name="narrow", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Conv", ["image", "w5"], ["b"], name="wide", kernel_shape=[5, 5], pads=[2] * 4),
        helper.make_node("Conv", ["image", "w1"], ["c"], name="point", kernel_shape=[1, 1]),
        helper.make_node("Concat", ["a", "b", "c"], ["d"], name="join", axis=1),
        helper.make_node("Slice", ["d", "start", "end", "axes"], ["e"], name="crop"),
        helper.make_node("Relu", ["e"], ["out"], name="last"),
    ]
    constants = [(f"w{size}", np.ones((4, 4, size, size), np.float32)) for size in (1, 3, 5)]
    constants += [(name, np.array([v], np.int64)) for name, v in (("start", 3), ("end", -1), ("axes", 2))]
    found = inspected(graph(nodes, constants))
    assert [(step.node, step.adds) for step in found.profile.steps] == [("wide", 2)]
    assert (found.geometry.y.origin, found.geometry.y.halo_before, found.geometry.y.halo_after) == (3, 2, 2)


def test_skips_join_the_levels_of_a_unet():
    """One skip for each level: the deeper the level, the shorter."""
    profile = inspected("unet_d3").profile
    assert len(profile.skips) == 3
    nested = sorted(profile.skips, key=lambda skip: skip.made)
    assert [skip.used for skip in nested] == sorted((skip.used for skip in nested), reverse=True)
    assert inspected("dilated").profile.skips == ()
    assert len(inspected("resnet_unet").profile.skips) == 4  # not the short cuts inside its blocks


def tiles_along(size: int, tile: int, before: int, after: int, stride: int) -> int:
    """Tiles laid out one by one until the image ends."""
    count, start = 1, 0
    while start + tile < size:
        answered = (start + tile - after) // stride * stride
        start = answered - -(-before // stride) * stride
        count += 1
    return count


def test_tiles_of_usual_sizes(tmp_path):
    done = forked("inspect", onnx_file(tmp_path, "unet_transpose3_d4"), "--json")
    found = json.loads(done.stdout)
    memory = deploy(
        prepare_network(onnx.load_from_string(onnx_bytes("unet_transpose3_d4")), name="n"), image_dtype="uint8"
    )
    model = memory.contract.memory
    assert [tile["tile"] for tile in found["tiles"]] == [[size, size] for size in (256, 512, 1024, 2048)]
    for tile in found["tiles"]:
        side = tile["tile"][0]
        count = tiles_along(20_000, side, 94, 110, 16)
        assert tile["computed_over_wanted"] == pytest.approx(count**2 * side**2 / 20_000**2, abs=1e-4)
        assert tile["memory_bytes"] == model.weights_bytes + model.activation_bytes(side, side)
    axis = {"step": 16, "remainder": 0, "own_remainders": [0], "one_piece_remainders": [], "one_piece_reason": None}
    assert found["sizes"] == {"y": axis, "x": axis}
    assert found["offset"] == {"y": "0", "x": "0"}
    assert found["halo_side"] == "bottom"
    assert found["halo_path"][-1]["cumulative"] == 110


def test_a_tile_too_small_for_the_halo_has_no_ratio(tmp_path):
    found = json.loads(forked("inspect", onnx_file(tmp_path, "fc_densenet56"), "--json").stdout)
    assert [tile["computed_over_wanted"] is None for tile in found["tiles"]] == [True, True, False, False]


def test_people_read_geometry_cost_tiles_and_path(tmp_path):
    said = forked("inspect", onnx_file(tmp_path, "valid")).stdout
    for words in (
        "offset",
        "4 x 4 pixels",
        "sizes     any",
        "880 multiply-accumulates",
        "1,539",
        "2048 x 2048",
        "top halo",
    ):
        assert words in said
    assert "Conv" in said.split("top halo")[1]


def test_obstacles_keep_their_place_and_cost_is_told(tmp_path):
    onnx.save(squeeze_and_excite(), tmp_path / "pooled.onnx")
    found = json.loads(forked("inspect", tmp_path / "pooled.onnx", "--json").stdout)
    assert (found["offset"], found["sizes"], found["tiles"], found["halo_path"]) == (None, None, [], [])
    assert found["cost"] == {"mac_per_pixel": 0, "parameters": 0, "at": [1024, 1024]}


class TestPlot:
    @pytest.fixture(autouse=True)
    def _needs_matplotlib(self):
        pytest.importorskip("matplotlib")

    @pytest.mark.parametrize("name", ["unet_d2", "fc_densenet56", "valid", "dilated", "low_resolution"])
    def test_every_layer_is_drawn_at_its_place(self, name):
        from exactile_converters.plot import draw_halo

        profile = inspected(name).profile
        (axes,) = draw_halo(profile, title="$a_").axes
        bars = {round(bar.get_y() + bar.get_height() / 2): bar for bar in axes.patches if hasattr(bar, "get_width")}
        for y, layer in enumerate(profile.layers):
            assert bars[y].get_x() == pytest.approx(float(layer.start))
            assert bars[y].get_x() + bars[y].get_width() == pytest.approx(float(layer.stop))
        assert len(axes.get_yticklabels()) == len(profile.layers) + 1

    def test_the_file_is_written_and_replaced_only_when_asked(self, tmp_path):
        model, picture = onnx_file(tmp_path, "unet_d2"), tmp_path / "halo.png"
        assert forked("inspect", model, "--plot", picture).returncode == 0
        whole = picture.read_bytes()
        assert whole.startswith(b"\x89PNG")
        picture.write_text("mine")
        again = forked("inspect", model, "--plot", picture)
        assert again.returncode == 2
        assert "--overwrite" in again.stderr
        assert picture.read_text() == "mine"
        assert forked("inspect", model, "--plot", picture, "--overwrite", "--json").returncode == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["halo.png", model.name]

    @pytest.mark.parametrize("target", ["nowhere/halo.png", "halo.doc"])
    def test_a_picture_that_cannot_be_is_refused(self, tmp_path, target):
        done = forked("inspect", onnx_file(tmp_path, "unet_d2"), "--plot", tmp_path / target)
        assert done.returncode >= 2
        assert done.stderr.startswith("error: ")
        assert target.split("/")[-1].split(".")[-1] in done.stderr
        assert done.stdout == ""

    def test_no_picture_without_a_halo(self, tmp_path):
        onnx.save(squeeze_and_excite(), tmp_path / "pooled.onnx")
        done = forked("inspect", tmp_path / "pooled.onnx", "--plot", tmp_path / "halo.png")
        assert done.returncode == 2
        assert "squeeze" in done.stderr
        assert not (tmp_path / "halo.png").exists()


def test_without_matplotlib_the_message_says_what_to_install(tmp_path, monkeypatch):
    from exactile.errors import OptionError
    from exactile_converters.plot import check_plot

    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(OptionError, match=r"exactile\[report\]"):
        check_plot(tmp_path / "halo.png", overwrite=False)
