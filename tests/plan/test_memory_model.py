"""The memory model against sums made by hand, and against what a fresh process takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.memory_model import Case, deploy_case, measure
from exactile.contract import BytesForShape
from exactile.plan.engine_memory import ACTIVATION_MARGIN
from exactile_converters.graphs.arena import footprints
from exactile_converters.graphs.kernels import lower
from exactile_converters.graphs.liveness import Allocation, Release, allocation_events
from exactile_converters.graphs.memory import NodeUse, TensorUse, memory_model, pareto
from models.unet import UNet

FLOAT = 4


def feature(name: str, channels: int, scale: float = 1.0) -> TensorUse:
    """A float32 tensor of ``channels`` at ``scale`` times the image's resolution."""
    return TensorUse(name=name, bytes=BytesForShape(FLOAT * channels * scale**2), channels=channels)


def conv(source: str, target: str, inside: int, outside: int, **attributes) -> NodeUse:
    shape = (outside, inside // attributes.get("group", 1), 3, 3)
    return NodeUse(op="Conv", inputs=(source, "w"), outputs=(target,), weight_shape=shape, attributes=attributes)


def node(op: str, sources: str, target: str, **attributes) -> NodeUse:
    return NodeUse(op=op, inputs=tuple(sources.split()), outputs=(target,), attributes=attributes)


def events_of(tensors, nodes):
    return allocation_events(*lower(tensors=tensors, nodes=nodes, inputs=["image"], outputs=["result"]))


def live_planes(tensors: list[TensorUse], nodes: list[NodeUse]) -> float:
    """The most channels' worth of full-resolution float32 that exist at once."""
    live, peak = {}, 0.0
    for event in events_of(tensors, nodes):
        if isinstance(event, Allocation):
            live[event.buffer] = event.size.area / FLOAT
            peak = max(peak, sum(live.values()))
        else:
            del live[event.buffer]
    assert not live, "every buffer is released"
    return peak


IMAGE = feature("image", 3)


def test_a_convolution_is_blocked_and_copied_back_for_an_operator_that_is_not():
    tensors = [IMAGE, feature("a", 16), feature("b", 16), feature("result", 16)]
    nodes = [conv("image", "a", 3, 16), node("Elu", "a", "b"), node("Round", "b", "result")]
    assert live_planes(tensors, nodes) == 16 + 16  # blocked a, plain a; Elu works in place; the result is the caller's


def test_channels_are_padded_to_full_blocks():
    tensors = [IMAGE, feature("a", 20), feature("b", 36), feature("c", 4), feature("result", 4)]
    nodes = [
        conv("image", "a", 3, 20), conv("a", "b", 20, 36), conv("b", "c", 36, 4), node("Round", "c", "result"),
    ]  # fmt: skip
    assert live_planes(tensors, nodes) == 32 + 48


def test_a_filter_that_does_not_fit_blocks_stays_plain():
    tensors = [IMAGE, feature("a", 18), feature("b", 18), feature("result", 18)]
    nodes = [conv("image", "a", 3, 18), conv("a", "b", 18, 18), node("Round", "b", "result")]
    assert live_planes(tensors, nodes) == 32 + 18  # blocked a beside its plain copy; then plain a and b: 36


def test_activation_and_batch_norm_take_no_memory_after_a_convolution():
    tensors = [IMAGE, *(feature(name, 16) for name in "abcd"), feature("result", 16)]
    nodes = [
        conv("image", "a", 3, 16), node("BatchNormalization", "a s", "b"), node("Relu", "b", "c"),
        conv("c", "d", 16, 16), conv("d", "result", 16, 16),
    ]  # fmt: skip
    assert live_planes(tensors, nodes) == 16 + 16


def test_an_activation_is_not_in_place_when_its_input_is_read_later():
    tensors = [
        IMAGE, feature("a", 16), feature("b", 16), feature("p", 16, 0.5), feature("q", 16, 0.5),
        feature("both", 32, 0.5), feature("result", 32, 0.5),
    ]  # fmt: skip
    nodes = [
        conv("image", "a", 3, 16), node("Relu", "a", "b"), node("MaxPool", "b", "p"), node("MaxPool", "a", "q"),
        node("Concat", "p q", "both", axis=1), node("Round", "both", "result"),
    ]  # fmt: skip
    assert live_planes(tensors, nodes) == 16 + 16 + 16 / 4


def test_an_addition_is_done_by_the_convolution_in_place_of_the_other_summand():
    tensors = [IMAGE, *(feature(name, 16) for name in "abcd"), feature("result", 16)]
    nodes = [
        conv("image", "a", 3, 16), conv("a", "b", 16, 16), conv("b", "c", 16, 16), node("Add", "c a", "d"),
        conv("d", "result", 16, 16),
    ]  # fmt: skip
    assert live_planes(tensors, nodes) == 16 + 16  # a, b; then c + a replaces a


def test_an_addition_is_not_in_place_when_the_other_summand_is_read_later():
    tensors = [IMAGE, *(feature(name, 16) for name in "abcde"), feature("result", 16)]
    nodes = [
        conv("image", "a", 3, 16), conv("a", "b", 16, 16), conv("b", "c", 16, 16), node("Add", "c a", "d"),
        node("Add", "d a", "e"), conv("e", "result", 16, 16),
    ]  # fmt: skip
    assert live_planes(tensors, nodes) == 16 * 3


def test_a_skip_connection_lives_until_its_concatenation_and_the_columns_until_the_end_of_the_transposed_convolution():
    tensors = [
        IMAGE, feature("skip", 16), feature("pool", 16, 0.5), feature("deep", 32, 0.5), feature("up", 16),
        feature("both", 32), feature("last", 16), feature("result", 16),
    ]  # fmt: skip
    up = NodeUse(op="ConvTranspose", inputs=("deep", "w"), outputs=("up",), weight_shape=(32, 16, 3, 3))
    nodes = [
        conv("image", "skip", 3, 16), node("MaxPool", "skip", "pool"), conv("pool", "deep", 16, 32), up,
        node("Concat", "skip up", "both", axis=1), conv("both", "last", 32, 16), node("Round", "last", "result"),
    ]  # fmt: skip
    columns = 16 * 9 / 4  # at the input's resolution
    assert live_planes(tensors, nodes) == max(16 + 32 / 4 + 16 + columns, 16 + 16 + 32)


def test_concatenation_stays_blocked_only_when_every_part_fills_its_blocks():
    def net(channels):
        tensors = [
            IMAGE, feature("a", 16), feature("b", channels), feature("both", 16 + channels), feature("c", 16),
            feature("result", 16),
        ]  # fmt: skip
        nodes = [
            conv("image", "a", 3, 16), conv("a", "b", 16, channels), node("Concat", "a b", "both", axis=1),
            conv("both", "c", 16 + channels, 16), conv("c", "result", 16, 16),
        ]  # fmt: skip
        return live_planes(tensors, nodes)

    assert net(16) == 16 + 16 + 32
    assert net(8) == 24 + 32  # plain concatenation, copied into 32 padded channels; before: 16 + 16 + 16


def test_views_cost_nothing_and_softmax_over_channels_three_arrays():
    tensors = [IMAGE, feature("a", 4), feature("b", 4), feature("c", 4), feature("result", 4)]
    nodes = [
        node("Round", "image", "a"), node("Squeeze", "a", "b"), node("Softmax", "b", "c", axis=1),
        node("Round", "c", "result"),
    ]  # fmt: skip
    assert live_planes(tensors, nodes) == 4 + 3 * 4


def test_a_plain_element_wise_operator_works_in_place():
    tensors = [IMAGE, feature("a", 4), feature("b", 4), feature("result", 4)]
    nodes = [node("Round", "image", "a"), node("Elu", "a", "b"), node("Round", "b", "result")]
    assert live_planes(tensors, nodes) == 4


def test_batch_norm_after_a_convolution_that_others_read_is_a_kernel_of_its_own():
    tensors = [IMAGE, *(feature(name, 16) for name in "abc"), feature("result", 16)]
    nodes = [
        conv("image", "a", 3, 16), node("BatchNormalization", "a s", "b"), node("Mul", "a b", "c"),
        conv("c", "result", 16, 16),
    ]  # fmt: skip
    assert live_planes(tensors, nodes) == 16 * 3


def test_a_tensor_read_before_it_is_written_is_refused():
    with pytest.raises(ValueError, match="'a' is read, but no earlier node writes it"):
        live_planes([IMAGE, feature("a", 4), feature("result", 4)], [node("Round", "a", "result")])


def test_the_arena_takes_the_smallest_piece_that_fits_and_joins_neighbours():
    a, b, c, d = (BytesForShape(0, row=rows) for rows in (10, 20, 5, 8))
    events = [
        Allocation(0, b), Allocation(1, c), Allocation(2, a), Allocation(3, c),  # b: 0..20, c: ..25, a: ..35, c: ..40
        Release(0), Release(2),
        Allocation(4, d),  # 25..33, in the hole of 10, although that of 20 comes first
        Release(1),  # joins 0..20 and 20..25
        Allocation(5, BytesForShape(0, row=25)),  # 0..25
        Allocation(6, a),  # only 33..35 is left below 40: at the end
        Release(3), Release(4),
        Allocation(7, BytesForShape(0, row=15)),  # 25..40, joined on both sides
    ]  # fmt: skip
    height = 1 << 16  # every size is a multiple of the alignment
    assert [end.row for end in footprints(events, height=height, width=1)] == [20, 25, 35, 40, 33, 25, 50, 40]


def test_a_models_bytes_are_the_arenas_end_its_table_and_the_weights():
    tensors = [IMAGE, feature("a", 16), feature("b", 16), feature("result", 16)]
    nodes = [conv("image", "a", 3, 16), conv("a", "b", 16, 16), conv("b", "result", 16, 16)]
    options = {"tensors": tensors, "nodes": nodes, "inputs": ["image"], "outputs": ["result"]}
    light, heavy = (memory_model(**options, constant_bytes=size) for size in (0, 100 << 20))
    # a 0..16, b 16..32; the blocked result takes a's place, and the table is a sixteenth of everything
    assert light.activation_bytes(512, 512) == pytest.approx(32 * FLOAT * 512 * 512 * 16 / 15, rel=1e-6)
    assert heavy.weights_bytes - light.weights_bytes >= 2 * (100 << 20)
    assert heavy.activation_bytes(16, 16) >= 100 << 20, "loading copies the weights"


def test_a_node_without_outputs_and_a_negative_channel_count_are_refused():
    with pytest.raises(ValueError, match="Relu node without outputs"):
        NodeUse(op="Relu", inputs=("a",), outputs=())
    with pytest.raises(ValueError, match="-1 channels"):
        feature("a", -1)


coefficients = st.integers(-3, 6)


@given(
    st.lists(st.builds(BytesForShape, coefficients, coefficients, coefficients, coefficients), min_size=1, max_size=12),
    st.integers(0, 50),
    st.integers(0, 50),
)
@example([BytesForShape(2), BytesForShape(1, row=5)], 1, 1)
@example([BytesForShape(2), BytesForShape(1, column=5)], 1, 1)
@example([BytesForShape(2), BytesForShape(1, constant=5)], 1, 1)
def test_pruning_steps_never_changes_the_largest(steps, height, width):
    kept = pareto(steps)
    assert set(kept) <= set(steps)
    assert max(s.at(height, width) for s in kept) == max(s.at(height, width) for s in steps)


@pytest.mark.parametrize(("up", "tile"), [("transpose2", (512, 512)), ("bilinear", (128, 1600))])
def test_a_fresh_process_takes_no_more_than_predicted_and_not_much_less(tmp_path: Path, up, tile):
    case = Case(name="small", build=lambda: UNet(3, 4, 8, 3, up=up), stride=8, tiles=(tile,))
    model = deploy_case(case)
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(model.graph)
    memory = model.contract.memory
    predicted = memory.weights_bytes + memory.activation_bytes(*tile)
    # The least of two: on a busy machine the system may hand out pages in larger pieces.
    measured = min(measure(model, graph, tile, runs=3, threads=None) for _ in range(2))
    assert measured <= predicted * ACTIVATION_MARGIN
    assert predicted <= 1.6 * measured
