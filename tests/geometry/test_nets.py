"""Halos of whole networks: as the table says, never too small, and tight."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.nets import NETS, onnx_bytes


def geometry_of(name: str, **options):
    traced = prepare_network(onnx.load_from_string(onnx_bytes(name, **options)), name=name).trace()
    assert traced.obstacles == ()
    assert traced.geometry is not None
    return traced.geometry


@pytest.mark.parametrize("name", NETS)
def test_the_walk_finds_the_known_geometry(name):
    """Strides, reaches and sizes worked out on paper."""
    net, geometry = NETS[name], geometry_of(name)
    assert (geometry.y.stride, geometry.x.stride) == (net.stride, net.stride)
    assert (geometry.y.before, geometry.y.after) == (net.reach.top, net.reach.bottom)
    assert (geometry.x.before, geometry.x.after) == (net.reach.left, net.reach.right)
    assert geometry.y.scale == net.scale
    assert geometry.y.output_size(net.stride * 40) == net.output_size(net.stride * 40)


@pytest.mark.parametrize("name", ["unet_d2", "unet_bilinear_skip_d2", "unet_transpose3_d2", "resnet_unet"])
def test_both_exporters_give_the_same_geometry(name):
    assert geometry_of(name) == geometry_of(name, exporter="dynamo")


def poisonable(name: str) -> bytes:
    """The network with positive weights: infinity in a pixel then reaches every output that depends on it."""
    model = onnx.load_from_string(onnx_bytes(name))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim > 0 and array.size > 4:
            tensor.CopyFrom(numpy_helper.from_array(np.abs(array) * np.float32(1e-3) + np.float32(1e-6), tensor.name))
    return model.SerializeToString()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("axis", ["y", "x"])
def test_one_pixel_less_halo_would_be_wrong_and_one_more_is_not_needed(name, axis):
    """Infinity one pixel beyond the claimed halo leaves the box finite; on its last pixel it does not."""
    geometry = geometry_of(name)
    net, along = NETS[name], getattr(geometry, axis)
    other = geometry.x if axis == "y" else geometry.y
    first = -(-(along.before + 1) // along.stride) * along.stride
    last = first + along.stride
    length = along.accepted_size(last + along.after + 1)
    breadth = other.accepted_size(max(64, other.stride) if other.size_constant == 0 else 64)
    session = ort.InferenceSession(poisonable(name))

    def box_is_finite(poison: slice) -> bool:
        image = np.ones((1, net.channels, length, breadth), np.float32)
        image[:, :, poison] = np.inf
        if axis == "x":
            image = np.ascontiguousarray(image.swapaxes(2, 3))
        (output,) = session.run(None, {"image": image})
        if axis == "x":
            output = output.swapaxes(2, 3)
        box = output[:, :, along.output_position(first) : along.output_position(last)]
        return bool(np.isfinite(box).all())

    assert box_is_finite(slice(0, first - along.before))
    assert not box_is_finite(slice(0, first - along.before + 1))
    assert box_is_finite(slice(last + along.after, length))
    assert not box_is_finite(slice(last + along.after - 1, length))
