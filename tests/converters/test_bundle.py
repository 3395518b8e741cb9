"""The bundle: what is written is what is opened, on any machine; and whatever is wrong with one is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnxruntime as ort
import pytest

import exactile
from exactile.bundle.contract_file import contract_schema
from exactile.errors import BundleError, EngineError, OptionError, OutputExistsError, SinkError
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, inspect_network, load_network
from tests.support.folders import ROOT
from tests.support.nets import NETS, onnx_file
from tests.support.oracle import whole_pass

NORMALIZATION = Normalization(scale=(255.0,), mean=(0.5, 0.4, 0.6), std=(0.25,))
ROLES = ("first", "body", "last")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    model = onnx_file(folder, "unet_d2")
    convert(model, folder / "unet.bundle", normalization=NORMALIZATION, tile=(96, 128), classes=["a", "b", "c"])
    return folder / "unet.bundle"


@pytest.fixture
def bundle(made, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / "copied"))


def segment(path, image, **options):
    sink = exactile.ArraySink()
    exactile.Session(exactile.open_bundle(path).model).segment(exactile.ArraySource(image), sink, **options)
    return sink.result


@pytest.mark.parametrize(
    "name", ["unet_d2", "unet_bilinear_d1", "segnet", "asymmetric", "valid", "super_resolution", "low_resolution"]
)
def test_tiles_strips_and_a_whole_pass_of_a_bundle_are_the_networks_own_result(name, tmp_path):
    path = onnx_file(tmp_path, name, "integer" if NETS[name].integer_weights else "random")
    convert(path, tmp_path / "made", output="raw")
    opened = exactile.open_bundle(tmp_path / "made")
    geometry = opened.model.contract.geometry
    size = [axis.accepted_size(n) for axis, n in ((geometry.y, 420), (geometry.x, 390))]
    image = np.random.default_rng(0).integers(0, 8, (*size, NETS[name].channels), dtype=np.uint8)
    expected = whole_pass(path.read_bytes(), image, geometry)
    for plan in ("whole", "tile", "strip"):
        found = segment(tmp_path / "made", image, plan=plan)
        if NETS[name].integer_weights:
            assert np.array_equal(found, expected)
        else:
            assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_graph_of_a_bundle_can_be_inspected_itself(made):
    """Names that exactile gave to its nodes are not given again."""
    found = inspect_network(load_network(made / "graph.onnx"))
    assert found.geometry.y.stride == exactile.open_bundle(made).model.contract.geometry.y.stride
    assert found.strips is not None


def test_a_moved_bundle_is_the_same_bundle(made, tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (200, 180, 3), dtype=np.uint8)
    before = segment(made, image, plan="strip")
    moved = tmp_path / "elsewhere" / "deep er"
    shutil.copytree(made, moved)
    assert np.array_equal(segment(moved, image, plan="strip"), before)


def test_the_contract_follows_its_schema_and_the_published_schema_is_the_codes(made):
    schema = contract_schema()
    published = json.loads((ROOT / "docs" / "contract.schema.json").read_text())
    assert published == schema
    contract = json.loads((made / "contract.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(contract, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**contract, "image": {**contract["image"], "channels": 0}}, schema)


def test_every_graph_runs_in_plain_onnx_runtime_where_it_lies(made):
    """Weights are found beside the graph, dimensions of the tile are fixed, metadata is there for other tools."""
    session = ort.InferenceSession(made / "tile-96x128.onnx", providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert image.shape == [96, 128, 3]
    sample = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    (labels,) = session.run(None, {image.name: sample})
    assert np.array_equal(labels, segment(made, sample, plan="whole"))
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == {"0": "a", "1": "b", "2": "c"}
    assert json.loads(metadata["standardization_mean"]) == [0.5, 0.4, 0.6]
    assert metadata["stride"] == "4"
    for name in ("graph.onnx", *(f"strip-{role}.onnx" for role in ROLES)):
        assert ort.InferenceSession(made / name, providers=["CPUExecutionProvider"]).get_outputs()
        onnx.checker.check_model(str(made / name))


def test_weights_are_stored_once(made):
    stored = sum(tensor.size for tensor in exactile.open_bundle(made).model.weights.values()) * 4
    assert stored <= (made / "weights.bin").stat().st_size <= stored * 1.1
    for path in made.glob("*.onnx"):
        assert path.stat().st_size < 60_000


LEAN = """
import sys, numpy as np, exactile
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"onnx", "onnx_ir", "onnxscript", "torch", "exactile_converters"}:
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Refuse())
sink = exactile.ArraySink()
image = np.load(sys.argv[2])
exactile.Session(exactile.open_bundle(sys.argv[1]).model).segment(exactile.ArraySource(image), sink, plan=sys.argv[3])
np.save(sys.argv[4], sink.result)
"""


@pytest.mark.parametrize("plan", ["tile", "strip"])
def test_a_bundle_runs_where_neither_onnx_nor_torch_nor_the_converter_can_be_imported(made, tmp_path, plan):
    image = np.random.default_rng(2).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    command = [sys.executable, "-c", LEAN, str(made), str(tmp_path / "image.npy"), plan, str(tmp_path / "labels.npy")]
    subprocess.run(command, check=True, capture_output=True)
    assert np.array_equal(np.load(tmp_path / "labels.npy"), segment(made, image, plan="whole"))


@pytest.mark.parametrize("name", ["graph.onnx", "strip-body.onnx", "weights.bin", "sample-image.npy"])
def test_one_flipped_bit_is_found(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 4
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} is not the file that was converted: its SHA-256 differs"):
        exactile.open_bundle(bundle)


@pytest.mark.parametrize("name", ["graph.onnx", "strip-last.onnx", "weights.bin", "sample-result.npy"])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        exactile.open_bundle(bundle)


def test_a_truncated_file_is_told_by_its_size(bundle):
    data = (bundle / "weights.bin").read_bytes()
    (bundle / "weights.bin").write_bytes(data[:-1])
    with pytest.raises(BundleError, match=f"{len(data) - 1} bytes where the contract says {len(data)}"):
        exactile.open_bundle(bundle)


def edited(bundle: Path, change) -> Path:
    path = bundle / "contract.json"
    contract = json.loads(path.read_text())
    change(contract)
    path.write_text(json.dumps(contract))
    return bundle


def test_a_bundle_of_version_1_is_still_read(made, bundle):
    """As version 1 wrote it: a result of five fields, in the contract and in the claims of each graph."""
    fields = ("name", "kind", "dtype", "channels", "classes")

    def older(contract):
        contract["version"] = 1
        contract["result"] = {name: contract["result"][name] for name in fields}
        for path in bundle.glob("*.onnx"):
            graph = onnx.load(path, load_external_data=False)
            for entry in graph.metadata_props:
                if entry.key == "exactile.result":
                    entry.value = json.dumps(contract["result"], separators=(",", ":"))
            path.write_bytes(data := graph.SerializeToString())
            contract["files"][path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    edited(bundle, older)
    image = np.random.default_rng(1).integers(0, 256, (96, 80, 3), dtype=np.uint8)
    for plan in ("tile", "strip"):
        assert np.array_equal(segment(bundle, image, plan=plan), segment(made, image, plan=plan))


def test_a_newer_version_asks_for_an_update(bundle):
    def newer(contract):
        contract.update(version=5, surprising={"new": "field"})

    with pytest.raises(BundleError, match="version 5 and this exactile reads up to 4: update exactile"):
        exactile.open_bundle(edited(bundle, newer))


@pytest.mark.parametrize("name", ["../graph.onnx", "/etc/passwd", "sub/graph.onnx", "..", ".hidden", "C:\\graph.onnx"])
def test_a_path_out_of_the_folder_is_refused(bundle, name):
    def outside(contract):
        contract["files"][name] = contract["files"]["graph.onnx"]
        contract["graph"]["file"] = name

    with pytest.raises(BundleError, match="damaged"):
        exactile.open_bundle(edited(bundle, outside))


def test_a_link_out_of_the_folder_is_refused(bundle, tmp_path):
    shutil.move(bundle / "weights.bin", tmp_path / "weights.bin")
    (bundle / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        exactile.open_bundle(bundle)


def stride(contract):
    contract["geometry"]["y"]["stride"] = 2


def halo(contract):
    contract["geometry"]["x"]["before"] = 0


def channels(contract):
    contract["image"]["channels"] = 1


def dtype(contract):
    contract["result"]["dtype"] = "uint16"


@pytest.mark.parametrize(
    ("change", "key"), [(stride, "geometry"), (halo, "geometry"), (channels, "image"), (dtype, "result")]
)
@pytest.mark.parametrize("plan", ["tile", "strip"])
def test_a_contract_that_does_not_match_its_graphs_is_refused_before_anything_runs(bundle, change, key, plan):
    opened = exactile.open_bundle(edited(bundle, change))
    image = np.zeros((200, 200, opened.model.contract.image.channels), np.uint8)
    with pytest.raises(EngineError, match=f"disagree about exactile.{key}"):
        exactile.Session(opened.model).segment(exactile.ArraySource(image), exactile.ArraySink(), plan=plan)


def weight_offset(contract):
    next(iter(contract["weights"].values()))["offset"] += 64


def strip_lag(contract):
    contract["strips"]["lag"] += 2


@pytest.mark.parametrize(("change", "key"), [(weight_offset, "weights"), (strip_lag, "strips")])
@pytest.mark.parametrize("plan", ["tile", "strip"])
def test_weights_and_strips_are_those_that_the_graphs_were_made_for(bundle, change, key, plan):
    """Both would run, and give another result."""
    opened = exactile.open_bundle(edited(bundle, change))
    with pytest.raises(EngineError, match=f"disagree about exactile.{key}"):
        exactile.Session(opened.model).segment(
            exactile.ArraySource(np.zeros((200, 200, 3), np.uint8)), exactile.ArraySink(), plan=plan
        )


def unlisted(contract):
    del contract["files"]["graph.onnx"]


def unknown_field(contract):
    contract["image"]["gamma"] = 2.2


def other_format(contract):
    contract["format"] = "somebody.else"


def contradiction(contract):
    contract["geometry"]["y"]["remainder"] = 7


def beyond(contract):
    next(iter(contract["weights"].values()))["offset"] = 1 << 40


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (unlisted, "does not list it"),
        (unknown_field, "gamma"),
        (other_format, "format 'somebody.else'"),
        (contradiction, "contradicts itself"),
        (beyond, "beyond the end"),
    ],
)
def test_a_damaged_contract_is_refused_with_its_reason(bundle, change, says):
    with pytest.raises(BundleError, match=says):
        exactile.open_bundle(edited(bundle, change))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[]", b'{"format": 3}', b'{"x":' * 10**5, b'{"format": "\xff"}']
)
def test_what_is_no_contract_is_refused(bundle, data):
    (bundle / "contract.json").write_bytes(data)
    with pytest.raises(BundleError, match="not a contract"):
        exactile.open_bundle(bundle)


def test_a_folder_without_contract_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"holds no contract\.json"):
        exactile.open_bundle(tmp_path)
    with pytest.raises(BundleError, match="no bundle at"):
        exactile.open_bundle(tmp_path / "nowhere")


def test_an_existing_bundle_is_kept_unless_told_and_something_else_always(made, tmp_path):
    model = onnx_file(tmp_path, "unet_d1")
    convert(model, tmp_path / "one")
    before = (tmp_path / "one" / "contract.json").read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        convert(model, tmp_path / "one")
    assert (tmp_path / "one" / "contract.json").read_bytes() == before
    convert(model, tmp_path / "one", classes=["x", "y", "z"], overwrite=True)
    assert [part.name for part in exactile.open_bundle(tmp_path / "one").file.classes] == ["x", "y", "z"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="not a bundle"):
        convert(model, precious, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    model = onnx_file(tmp_path, "unet_d1")
    real = os.fsync

    def full(descriptor):
        real(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SinkError, match="No space left"):
        convert(model, tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


@pytest.mark.parametrize(
    ("output", "dtype", "plan"),
    [
        ("probabilities", "uint8", "tile"),
        ("probabilities", "float16", "strip"),
        ("raw", "float16", "tile"),
        pytest.param("probabilities", "uint8", "strip", marks=pytest.mark.slow),
        pytest.param("probabilities", "float16", "tile", marks=pytest.mark.slow),
        pytest.param("raw", "float16", "strip", marks=pytest.mark.slow),
    ],
)
def test_maps_of_fewer_bits_are_the_float_maps_rounded(tmp_path, output, dtype, plan):
    model = onnx_file(tmp_path, "unet_d2")
    image = np.random.default_rng(4).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    convert(model, tmp_path / "float", output=output, normalization=NORMALIZATION)
    convert(model, tmp_path / "less", output=output, map_dtype=dtype, normalization=NORMALIZATION)
    full, found = (segment(tmp_path / name, image, plan=plan) for name in ("float", "less"))
    assert (full.dtype, found.dtype) == (np.float32, np.dtype(dtype))
    assert np.array_equal(found, np.rint(full * 255).astype(np.uint8) if dtype == "uint8" else full.astype(dtype))


def test_types_that_make_no_sense_are_refused(tmp_path):
    model = onnx_file(tmp_path, "unet_d1")
    with pytest.raises(OptionError, match="the type of labels follows"):
        convert(model, tmp_path / "b", map_dtype="float16")
    with pytest.raises(OptionError, match="uint8 is for probabilities"):
        convert(model, tmp_path / "b", output="raw", map_dtype="uint8")
