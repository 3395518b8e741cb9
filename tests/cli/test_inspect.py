"""``exactile inspect`` for people and as JSON."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import TensorProto, helper

from exactile.kept_maps.store import most_kept_bytes
from exactile_converters.deploy import deploy_in_passes, load_network
from tests.cli.test_failures import squeeze_and_excite
from tests.geometry.test_obstacles import vision_transformer
from tests.support.command import exactile
from tests.support.global_nets import chain
from tests.support.nets import onnx_file


def inspected(path) -> dict:
    done = exactile("inspect", path, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_json_of_a_tileable_network(tmp_path):
    found = inspected(onnx_file(tmp_path, "unet_transpose3_d4"))
    assert found["tileable"] is True
    assert found["stride"] == {"y": 16, "x": 16}
    assert found["halo"] == {"top": 94, "bottom": 110, "left": 94, "right": 110}
    assert found["scale"] == {"y": "1", "x": "1"}
    assert found["obstacles"] == []
    assert found["inputs"][0]["name"] == "image"
    assert found["inputs"][0]["dtype"] == "float32"
    assert found["outputs"][0]["name"] == "logits"


@pytest.mark.parametrize(("name", "scale"), [("super_resolution", "2"), ("low_resolution", "1/4")])
def test_scale_is_a_fraction(tmp_path, name, scale):
    assert inspected(onnx_file(tmp_path, name))["scale"] == {"y": scale, "x": scale}


def test_obstacles_name_node_operator_reason_and_remedy(tmp_path):
    path = tmp_path / "pooled.onnx"
    onnx.save(squeeze_and_excite(), path)
    found = inspected(path)
    assert found["tileable"] is False
    assert found["obstacles"][0]["node"] == "squeeze"
    assert found["obstacles"][0]["op"] == "GlobalAveragePool"
    assert "whole image" in found["obstacles"][0]["reason"]
    assert found["obstacles"][0]["remedy"]


def test_obstacles_are_counted_and_named_by_their_cause(tmp_path):
    """A class token before those of the image follows from attention; people see it, and every node, when they ask."""
    path = tmp_path / "vit.onnx"
    path.write_bytes(vision_transformer())
    (found,) = inspected(path)["obstacles"]
    assert (found["op"], found["count"], len(found["nodes"])) == ("MatMul", 2, 2)
    assert (found["node"], found["module"], found["statistic"]) == (found["nodes"][0], None, False)
    assert [one["op"] for one in found["consequences"]] == ["Concat"]
    told = exactile("inspect", path).stdout
    assert "obstacle  2 MatMul nodes, the first: MatMul" in told
    assert "--verbose" in told
    assert "Concat" not in told
    named = exactile("inspect", path, "--verbose").stdout
    assert f"also    {found['nodes'][1]!r}" in named
    assert "follows Concat" in named


def test_an_unknown_operator_is_an_obstacle(tmp_path):
    node = helper.make_node("Swirl", ["image"], ["out"], name="twist", domain="acme")
    dims = [1, 3, "h", "w"]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, dims)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "acme.onnx")
    found = inspected(tmp_path / "acme.onnx")
    assert [(one["node"], one["op"]) for one in found["obstacles"]] == [("twist", "Swirl")]


def test_people_read_the_same(tmp_path):
    done = exactile("inspect", onnx_file(tmp_path, "unet_d2"))
    assert done.returncode == 0
    assert "top 22, bottom 22, left 22, right 22" in done.stdout


def test_help_has_examples():
    for command in ("run", "inspect"):
        for words in ((command, "--help"), ("--help",)):
            done = exactile(*words)
            assert done.returncode == 0
            assert f"exactile {command} unet.onnx" in done.stdout


def test_a_missing_model_is_refused():
    done = exactile("inspect", "nowhere.onnx")
    assert done.returncode >= 2
    assert done.stderr.startswith("error: ")


def test_passes_of_a_network_that_takes_statistics_of_the_whole_image(tmp_path):
    """Two levels; how far each looks, and that the obstacles are none to passes."""
    path = tmp_path / "chain.onnx"
    path.write_bytes(chain("excitation"))
    found = json.loads(exactile("inspect", path, "--json").stdout)
    assert [[one["kind"] for one in each["statistics"]] for each in found["passes"]["before"]] == [["mean"], ["mean"]]
    assert found["passes"]["before"][0]["halo"]["top"] < found["passes"]["halo"]["top"]
    assert 1 < found["passes"]["times"] < 3
    told = exactile("inspect", path).stdout
    assert "yes, exactly, in 3 passes: 2 for statistics of the whole image" in told
    assert "obstacle" not in told


def test_what_an_image_of_one_size_takes(tmp_path):
    """Kept maps as many bytes as a run keeps; one pass of twice the height about twice as many."""
    path, size = tmp_path / "chain.onnx", (640, 512)
    path.write_bytes(chain("instance_norm"))
    deployed = deploy_in_passes(load_network(path), image_dtype="uint8", image_size=size)
    found = json.loads(exactile("inspect", path, "--json", "--size", "640x512").stdout)["at_size"]
    assert (found["height"], found["width"]) == size
    assert found["kept_bytes"] == most_kept_bytes(deployed.keeping.at(size), size) > 0
    larger = json.loads(exactile("inspect", path, "--json", "--size", "1280x512").stdout)["at_size"]
    assert 1.5 < larger["one_pass_bytes"] / found["one_pass_bytes"] < 2.1
    told = " ".join(exactile("inspect", path, "--size", "640x512").stdout.split())
    assert "at 640 x 512 pixels, one pass over the whole image takes" in told
    assert "kept maps take up to" in told


def test_the_memory_of_one_pass_of_a_network_that_is_tiled(tmp_path):
    found = json.loads(exactile("inspect", onnx_file(tmp_path, "unet_d2"), "--json", "--size", "801").stdout)["at_size"]
    assert found["one_pass_bytes"] > 801 * 801 * 4
    assert found["kept_bytes"] is None
    refused = exactile("inspect", onnx_file(tmp_path, "unet_d2"), "--size", "large")
    assert refused.returncode == 2
    assert "--size takes a size such as" in refused.stderr
