"""Plans for GPUs with more memory than their libraries can index: no tensor has 2^31 elements."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest

import exactile
from benchmarks.networks import deployed, unet
from exactile import open_bundle
from exactile.bundle.translation import memory_from, memory_part
from exactile.errors import BudgetError
from exactile.planning import Planner, Wish
from exactile.processors.protocol import DeviceSpace
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

BUNDLES = Path(exactile.__file__).parent / "doctor" / "bundles"
INDEXED = 1 << 31
SIDE = 20_000


@pytest.fixture(scope="module")
def model():
    """The paper's U-Net with 16 features."""
    return deployed(unet(16), "U-Net")


def planner(model) -> Planner:
    space = DeviceSpace(devices=1, slots=4, memory_bytes=70 << 30, engines=None)
    return Planner(model, budget_bytes=1 << 40, process_bytes=1 << 30, space=space)


def image(model) -> ArraySource:
    """All of it one value in memory."""
    return ArraySource(np.broadcast_to(np.zeros((), np.uint8), (SIDE, SIDE, model.contract.image.channels)))


def largest_tensor(graph: bytes, shape: tuple[int, int], further: dict[str, int]) -> int:
    """Elements, by ONNX's own shape inference at this image shape."""
    proto = onnx.load_from_string(graph)
    sizes = {"height": shape[0], "width": shape[1], **further}
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes = [
        [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    ]
    assert sum(prod(dims) > 0 for dims in shapes) > 0.8 * len(inferred.node)
    return max(map(prod, shapes))


@pytest.mark.parametrize("plan", ["auto", "tile", "strip"])
def test_no_tensor_has_more_elements_than_kernels_index(model, plan):
    """However much memory the GPU has; what is chosen is large all the same."""
    chosen = planner(model).choose(image(model), ArraySink(), Wish(plan=plan)).plan
    graphs, strips = {"tile": (model.graph, chosen.y.tile if chosen.name != "strip" else 0)}, model.strips
    further = {}
    if chosen.name == "strip":
        graphs = {role: (strips.graphs[role].graph, rows) for role, rows in chosen.y.highest.items()}
        further = {carry.width_name: carry.columns_at(chosen.x.tile) for carry in strips.carries}
    largest = max(largest_tensor(graph, (rows, chosen.x.tile), further) for graph, rows in graphs.values())
    assert INDEXED / 64 < largest < INDEXED


def test_every_recorded_count_is_that_of_the_graph(model):
    """The largest tensor of a tile and of strips, at a shape that is nothing special; through a contract, too."""
    strips = model.strips
    further = {carry.width_name: carry.columns_at(480) for carry in strips.carries}
    runs = [(model.graph, model.contract.memory, {})]
    runs += [(strips.graphs[role].graph, strips.graphs[role].memory, further) for role in ("first", "body", "last")]
    for graph, memory, sizes in runs:
        largest = largest_tensor(graph, (640, 480), sizes)
        assert memory.largest_tensor(640, 480) == largest
        assert memory_from(memory_part(memory)) == memory
        assert replace(memory, elements=()).largest_tensor(640, 480) > largest


def test_a_bundle_without_counts_is_opened_and_has_the_bytes_for_a_bound():
    """Its graphs' hashes are those of a contract without the field."""
    found = open_bundle(BUNDLES / "labels.bundle").model
    assert found.contract.memory.elements == ()
    assert found.contract.memory.largest_tensor(64, 96) == found.contract.memory.activation_bytes(64, 96)


def test_one_pass_that_is_too_large_is_refused_with_the_reason(model):
    """Memory is not what is missing, so the message does not ask for more."""
    with pytest.raises(BudgetError, match=r"a pass of 20000x20000 would have a tensor of .* elements") as caught:
        planner(model).choose(image(model), ArraySink(), Wish(plan="whole"))
    assert "raise" not in str(caught.value)
