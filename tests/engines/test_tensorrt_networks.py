"""TensorRT-RTX builds every reference network and every export: tiles, batches and strips, in both precisions."""

from __future__ import annotations

import pytest

from exactile.errors import ModelError
from exactile_converters.cleanup.simplify import simplify
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.device.agreement import carried_rows, check_strip, check_tile
from exactile_converters.device.form import strip_form, tile_form
from exactile_converters.prepare.from_onnx import load_network
from tests.support.folders import TESTS
from tests.support.nets import NETS, onnx_file
from tests.support.rtx_builds import plan_of

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

EXPORTS = sorted((TESTS / "exports").glob("*.onnx"))
NORMALIZATION = Normalization(scale=(255.0,))


@pytest.mark.slow(reason="some four hundred engines take minutes")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", [*NETS, *(path.name for path in EXPORTS)])
def test_it_is_built_for_tiles_batches_and_strips(tmp_path, name, precision):
    path = onnx_file(tmp_path, name) if name in NETS else EXPORTS[0].with_name(name)
    try:
        network = load_network(path)
        simplify(network)
        model = deploy(network, image_dtype="uint8", normalization=NORMALIZATION)
    except ModelError as error:
        pytest.skip(f"it cannot be tiled exactly: {error}")
    y, x = model.contract.geometry.y, model.contract.geometry.x
    width = x.accepted_size(160)
    for batch in (1, 2):
        form = tile_form(model, (y.accepted_size(128), width), batch=batch, precision=precision)
        check_tile(model, form, precision)
        assert plan_of(model, form, precision=precision)
    strips = model.strips
    rows = -(-64 // y.stride) * y.stride
    first, least = -(-strips.startup_rows // rows) * rows, strips.least_last_rows
    carried = carried_rows(model, first, width)
    for role, heights in (
        ("first", (first, first)),
        ("body", (rows, rows)),
        ("last", (least, least + rows - y.stride)),
    ):
        form = strip_form(model, role, heights, width, precision=precision)
        check_strip(model, form, precision, carried)
        assert plan_of(model, form, precision=precision)
