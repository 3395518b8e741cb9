"""What is told of networks that cannot be tiled: every obstacle, counted by kind, and the cause, not what follows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from exactile_converters.geometry.obstacle import Obstacle
from exactile_converters.obstacles.find import find_obstacles
from exactile_converters.prepare.from_onnx import prepare_network
from tests.converters.test_graph_io import weights
from tests.geometry.test_rules_tile import SIZE_CONSTANTS, C, floats, ints, node, sizes_of, stem

FLAT = {**SIZE_CONSTANTS, "half": ints(2), "zero": ints(0)}
ATTEND = [
    node("MatMul", "t q", "query"),
    node("MatMul", "t k", "key"),
    node("Transpose", "key", "keys", perm=[0, 2, 1]),
    node("MatMul", "query keys", "scores"),
    node("Mul", "scores scale", "scaled"),
    node("Softmax", "scaled", "soft", axis=-1),
    node("MatMul", "soft t", "mean"),
    node("Add", "t mean", "u"),
]
ATTEND_WEIGHTS = {"q": weights(C, C), "k": weights(C, C), "scale": floats(0.5)}
TO_TOKENS = [
    *sizes_of("a"),
    node("Concat", "one four minus", "flat", axis=0),
    node("Reshape", "a flat", "rows"),
    node("Transpose", "rows", "positions", perm=[0, 2, 1]),
]
FROM_TOKENS = [
    node("Transpose", "u", "back", perm=[0, 2, 1]),
    node("Concat", "one minus h w_", "full", axis=0),
    node("Reshape", "back full", "out"),
]


def obstacles_of(*nodes, constants=None, **options) -> tuple[Obstacle, ...]:
    model = stem(*nodes, constants=constants, **options)
    return find_obstacles(prepare_network(onnx.load_from_string(model), name="net"))


def test_normalisations_that_passes_take_are_counted():
    """Each hides the next from the walk."""
    nodes, last = [], "a"
    for index in range(5):
        nodes += [
            node("InstanceNormalization", f"{last} s b", f"i{index}"),
            node("Relu", f"i{index}", f"r{index}"),
            node("Conv", f"r{index} v", f"c{index}", pads=[1] * 4),
        ]
        last = f"c{index}"
    (found,) = obstacles_of(
        *nodes[:-1], node("Conv", "r4 v", "out", pads=[1] * 4),
        constants={"s": np.ones(C, np.float32), "b": np.zeros(C, np.float32), "v": weights(C, C, 3, 3)},
    )  # fmt: skip
    assert (found.op, found.count, found.statistic) == ("InstanceNormalization", 5, True)
    assert str(found).startswith(f"5 InstanceNormalization nodes, the first: InstanceNormalization {found.node!r}: ")


def test_poolings_along_one_axis_are_counted_and_stand_in_the_way():
    """They are no statistics, and one hides the next."""
    nodes, last = [], "a"
    for index in range(4):
        nodes += [
            node("ReduceMean", last, f"m{index}", axes=[3], keepdims=1),
            node("Sigmoid", f"m{index}", f"g{index}"),
            node("Mul", f"{last} g{index}", f"b{index}" if index < 3 else "out"),
        ]
        last = f"b{index}"
    (found,) = obstacles_of(*nodes)
    assert (found.op, found.count, found.statistic) == ("ReduceMean", 4, False)
    assert "over x" in found.reason


def test_squeeze_and_excitation_is_counted_through_what_it_scales():
    nodes, last = [], "a"
    for index in range(4):
        nodes += [
            node("GlobalAveragePool", last, f"p{index}"),
            node("Conv", f"p{index} v", f"e{index}"),
            node("HardSigmoid", f"e{index}", f"g{index}"),
            node("Mul", f"{last} g{index}", f"b{index}" if index < 3 else "out"),
        ]
        last = f"b{index}"
    (found,) = obstacles_of(*nodes, constants={"v": weights(C, C, 1, 1)})
    assert (found.op, found.count, found.statistic) == ("GlobalAveragePool", 4, True)


def test_attention_behind_normalisations_comes_first_and_they_are_counted():
    nodes = [
        node("InstanceNormalization", "a s b", "i0"),
        node("Conv", "i0 v", "c0", pads=[1] * 4),
        node("InstanceNormalization", "c0 s b", "i1"),
        *sizes_of("i1"),
        node("Concat", "one four minus", "flat", axis=0),
        node("Reshape", "i1 flat", "rows"),
        node("Transpose", "rows", "t", perm=[0, 2, 1]),
        *ATTEND,
        *FROM_TOKENS[:-1],
        node("Reshape", "back full", "map"),
        node("InstanceNormalization", "map s b", "out"),
    ]
    scales = {"s": np.ones(C, np.float32), "b": np.zeros(C, np.float32), "v": weights(C, C, 3, 3)}
    found = obstacles_of(*nodes, constants={**FLAT, **ATTEND_WEIGHTS, **scales})
    assert [(one.op, one.count, one.statistic) for one in found] == [
        ("MatMul", 1, False),
        ("InstanceNormalization", 3, True),
    ]
    assert "attention between all positions" in found[0].reason
    assert "Softmax" in found[0].reason


def vision_transformer() -> bytes:
    """A token is put before those of the image, two blocks attend, and the token is cut off again."""
    new = {name: f"{name}2" for name in ("query", "key", "keys", "scores", "scaled", "soft", "mean")}
    again = [
        (op, [{"t": "u", **new}.get(x, x) for x in inputs], [{"u": "z", **new}.get(x, x) for x in outputs], attributes)
        for op, inputs, outputs, attributes in ATTEND
    ]
    nodes = [
        *TO_TOKENS,
        node("Concat", "token positions", "t", axis=1),
        *ATTEND,
        *again,
        node("Slice", "z one end one", "kept"),
        node("Transpose", "kept", "back", perm=[0, 2, 1]),
        node("Concat", "one minus h w_", "full", axis=0),
        node("Reshape", "back full", "out"),
    ]
    constants = {**FLAT, **ATTEND_WEIGHTS, "token": weights(1, 1, C), "end": ints(2**31 - 1)}
    return stem(*nodes, constants=constants)


def test_a_vision_transformer_is_refused_for_its_attention_not_for_its_class_token():
    (found,) = find_obstacles(prepare_network(onnx.load_from_string(vision_transformer()), name="net"))
    assert (found.op, found.count) == ("MatMul", 2)
    assert "attention between all positions" in found.reason
    assert [one.op for one in found.consequences] == ["Concat"]


def test_a_stored_position_embedding_is_named_as_that_and_hides_no_attention():
    nodes = [*TO_TOKENS, node("Add", "positions embedding", "t"), *ATTEND, *FROM_TOKENS]
    found = obstacles_of(*nodes, constants={**FLAT, **ATTEND_WEIGHTS, "embedding": weights(1, 64, C)})
    assert [one.op for one in found] == ["MatMul", "Add"]
    assert "attention between all positions" in found[0].reason
    assert "a constant of shape (1, 64, 4), which was stored for one image size" in found[1].reason


def test_unfolding_for_attention_between_patches_is_no_cause():
    """As MobileViT does: positions of a 2 x 2 patch become a batch, and patches attend to each other."""
    nodes = [
        *sizes_of("a"),
        node("Div", "h half", "hh"),
        node("Div", "w_ half", "ww"),
        node("Mul", "four hh", "folded"),
        node("Mul", "hh ww", "patches"),
        node("Concat", "folded half ww half", "split", axis=0),
        node("Reshape", "a split", "s"),
        node("Transpose", "s", "st", perm=[0, 2, 1, 3]),
        node("Concat", "one four patches four", "grouped", axis=0),
        node("Reshape", "st grouped", "g"),
        node("Transpose", "g", "gt", perm=[0, 3, 2, 1]),
        node("Concat", "four patches four", "tokens_shape", axis=0),
        node("Reshape", "gt tokens_shape", "t"),
        *ATTEND,
        node("Concat", "one four patches four", "again", axis=0),
        node("Reshape", "u again", "ur"),
        node("Transpose", "ur", "ut", perm=[0, 3, 2, 1]),
        node("Concat", "folded ww half half", "unsplit", axis=0),
        node("Reshape", "ut unsplit", "us"),
        node("Transpose", "us", "ust", perm=[0, 2, 1, 3]),
        node("Concat", "one four h w_", "full", axis=0),
        node("Reshape", "ust full", "out"),
    ]
    (found,) = obstacles_of(*nodes, constants={**FLAT, **ATTEND_WEIGHTS})
    assert (found.op, found.statistic) == ("MatMul", False)
    assert "attention between all positions" in found.reason
    assert {one.op for one in found.consequences} <= {"Reshape", "Transpose"}
    assert found.consequences


def test_attention_in_windows_is_not_taken_for_attention_between_all_positions():
    """Behind a roll that nothing undoes, which is the obstacle."""
    nodes = [
        node("Slice", "a half end axis", "below"),
        node("Slice", "a zero half axis", "above"),
        node("Concat", "below above", "rolled", axis=2),
        *sizes_of("rolled"),
        node("Div", "h half", "hh"),
        node("Div", "w_ half", "ww"),
        node("Concat", "one four hh half ww half", "split", axis=0),
        node("Reshape", "rolled split", "s"),
        node("Transpose", "s", "st", perm=[0, 2, 4, 3, 5, 1]),
        node("Concat", "minus four four", "windows", axis=0),
        node("Reshape", "st windows", "t"),
        *ATTEND,
        node("Concat", "one hh ww half half four", "unsplit", axis=0),
        node("Reshape", "u unsplit", "us"),
        node("Transpose", "us", "ut", perm=[0, 5, 1, 3, 2, 4]),
        node("Concat", "one four h w_", "full", axis=0),
        node("Reshape", "ut full", "out"),
    ]
    found = obstacles_of(*nodes, constants={**FLAT, **ATTEND_WEIGHTS, "axis": ints(2), "end": ints(2**31 - 1)})
    assert len(found) == 1
    assert "cyclically shifted" in found[0].reason


def test_a_shift_that_ends_at_a_stored_size_is_told_as_one():
    """Exported for images of 64 rows: the rest of larger ones is left out."""
    nodes = [
        node("Slice", "a half end axis", "below"),
        node("Slice", "a zero half axis", "above"),
        node("Concat", "below above", "rolled", axis=2),
        node("Relu", "rolled", "out"),
    ]
    found = obstacles_of(*nodes, constants={"half": ints(2), "zero": ints(0), "axis": ints(2), "end": ints(64)})
    assert {one.op for one in found} == {"Slice"}
    assert all("a cyclic shift" in one.reason for one in found)


def test_an_array_that_the_export_took_for_a_constant_is_named_instead_of_the_sum_that_it_enters():
    """A shortcut of which the channels are filled up with zeros, read by ``.data`` while it was traced."""
    nodes = [
        *sizes_of("a"),
        node("Concat", "one two h w_", "zeros_shape", axis=0),
        node("ConstantOfShape", "zeros_shape", "zeros"),
        node("Concat", "stored zeros", "shortcut", axis=1),
        node("Add", "a shortcut", "out"),
    ]
    (found,) = obstacles_of(*nodes, constants={**SIZE_CONSTANTS, "stored": weights(1, 2, 8, 8)})
    assert found.op == "Concat"
    assert "a constant of shape (1, 2, 8, 8), which was stored for one image size" in found.reason
    assert [one.op for one in found.consequences] == ["Add"]


def test_a_mean_over_the_map_that_was_exported_as_a_window_is_told_so():
    nodes = [
        node("AveragePool", "a", "p", kernel_shape=[32, 32], strides=[32, 32]),
        node("Flatten", "p", "style"),
        node("Gemm", "style m", "dense"),
        node("Unsqueeze", "dense two_three", "wide"),
        node("Add", "a wide", "out"),
    ]
    found = obstacles_of(*nodes, constants={"m": weights(C, C), "two_three": ints(2, 3)})
    assert found[0].op == "Flatten"
    assert "pooling over the whole map" in found[0].reason
    assert "32 x 32" in found[0].reason


def test_padding_to_a_multiple_is_told_by_the_multiple():
    """Of 7, at the bottom: what the probed sizes lack differs."""
    nodes = [
        *sizes_of("a"),
        node("Mod", "h seven", "over"),
        node("Sub", "seven over", "lacking"),
        node("Mod", "lacking seven", "more"),
        node("Concat", "none more none_", "pads", axis=0),
        node("Pad", "a pads", "out"),
    ]
    constants = {**SIZE_CONSTANTS, "seven": ints(7), "none": ints(*[0] * 6), "none_": ints(0)}
    (found,) = obstacles_of(*nodes, constants=constants)
    assert found.op == "Pad"
    assert "to a multiple of 7 pixels" in found.reason


def test_a_size_that_pixels_decide_is_told_so():
    nodes = [
        node("ReduceMax", "a", "top", keepdims=0),
        node("Cast", "top", "count", to=TensorProto.INT64),
        node("Unsqueeze", "count zero", "end"),
        node("Slice", "a zero end two", "out"),
    ]
    found = obstacles_of(*nodes, constants={"zero": ints(0), "two": ints(2)})
    assert [(one.op, one.statistic) for one in found] == [("Slice", False), ("ReduceMax", True)]
    assert "computed from pixel values" in found[0].reason


@pytest.mark.parametrize(
    ("target", "says"),
    [("given", "its output size along y is fixed"), ("follows", "its factor along y depends on the image's size")],
)
def test_only_a_fixed_size_is_called_fixed(target, says):
    """Of float64, whose positions are not followed: to 40 rows whatever the image, and to three rows fewer."""
    nodes = [
        node("Slice", "a three_ end axes", "cropped"),
        node("Shape", "cropped", "follows"),
        node("Cast", "a", "double", to=TensorProto.DOUBLE),
        node("Resize", f"double _ _ {target}", "resized", mode="linear"),
        node("Cast", "resized", "out", to=TensorProto.FLOAT),
    ]
    constants = {
        "given": ints(1, C, 40, 40),
        "three_": ints(3, 3),
        "end": ints(2**31 - 1, 2**31 - 1),
        "axes": ints(2, 3),
    }
    (found,) = obstacles_of(*nodes, constants=constants)
    assert found.op == "Resize"
    assert says in found.reason


def test_sizes_written_as_numbers_are_told_so():
    nodes = [node("Reshape", "a written", "r"), node("ReduceMax", "r", "out", axes=[2], keepdims=0)]
    (found,) = obstacles_of(*nodes, constants={"written": ints(1, C, 2, 4, 8)})
    assert "whatever the image's size" in found.reason
    assert "exported" in found.reason


def scoped(scopes: str) -> onnx.ModelProto:
    """One running sum, with metadata as dynamo writes it."""
    model = onnx.load_from_string(stem(node("CumSum", "a axis", "out"), constants={"axis": np.int64(-2)}))
    (running,) = (one for one in model.graph.node if one.op_type == "CumSum")
    running.name = "node_cumsum_3"
    running.metadata_props.append(onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value=scopes))
    return model


def test_the_module_of_a_node_is_told_where_the_file_tells_it():
    model = scoped("['', 'encoder', 'encoder.layers.0', 'encoder.layers.0.attn', 'cumsum_3']")
    (found,) = find_obstacles(prepare_network(model, name="net"))
    assert found.module == "encoder.layers.0.attn"
    assert str(found).startswith("encoder.layers.0.attn (CumSum node_cumsum_3): ")


@pytest.mark.parametrize("scopes", ["['', 'cumsum_3']", "", "[", "']'" * 9, "['a\x1b[31m', 'b']"])
def test_metadata_that_tells_no_module_does_no_harm(scopes):
    (found,) = find_obstacles(prepare_network(scoped(scopes), name="net"))
    assert found.node == "node_cumsum_3"
    assert str(found).isprintable()


def test_a_result_that_is_a_number_of_the_whole_image_is_refused_for_what_makes_it():
    (found,) = obstacles_of(node("GlobalAveragePool", "a", "out"))
    assert (found.op, found.statistic) == ("GlobalAveragePool", False)


def test_a_network_that_can_be_tiled_has_none():
    assert obstacles_of(node("Relu", "a", "out")) == ()


def test_operators_of_others_are_counted_behind_each_other():
    made = [
        helper.make_node("Swirl", ["image"], ["b"], domain="acme"),
        helper.make_node("Swirl", ["b"], ["out"], domain="acme"),
    ]
    image, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "h", "w"]) for name in ("image", "out"))
    graph = helper.make_graph(made, "g", [image], [out])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    (found,) = find_obstacles(prepare_network(helper.make_model(graph, opset_imports=opsets, ir_version=8), name="net"))
    assert found.op == "Swirl"


@pytest.mark.slow
def test_dynamo_tells_the_module_of_attention_and_the_number_of_its_blocks():
    """Two blocks of a vision transformer in a list of modules."""
    import io

    import torch

    from exactile_converters.torch_export import export_onnx

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            scores = self.query(tokens) @ self.key(tokens).transpose(1, 2)
            return tokens + torch.softmax(scores, -1) @ tokens

    class Transformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Conv2d(8, 2, 1)
            self.blocks = torch.nn.Sequential(Block(), Block())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x)
            tokens = self.blocks(x.flatten(2).transpose(1, 2))
            return self.head(tokens.transpose(1, 2).reshape(x.shape))

    buffer = io.BytesIO()
    export_onnx(Transformer(), buffer, 3, exporter="dynamo", stride=4)
    (found,) = find_obstacles(prepare_network(onnx.load_from_string(buffer.getvalue()), name="net"))
    assert (found.op, found.module, found.count) == ("MatMul", "blocks.0", 2)
