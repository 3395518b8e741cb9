"""Engines beside a bundle: those that fit are found, and of all others it is said why they are not used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

import exactile
from exactile.bundle.contract_file import ContractFile
from exactile.bundle.engine_file import EngineFile, encode_engine_file, model_digest
from exactile.bundle.engine_files import MOST_FILES
from exactile.bundle.engine_tensors import engine_tensors
from exactile.contract.built_engine import TensorSpec
from exactile_converters.convert import convert
from tests.support.command import exactile as command
from tests.support.nets import onnx_file

ZEROS = "0" * 64


def described(bundle, role="tile", *, batch=1, rows=(96, 96), columns=64, **changes) -> dict:
    """A sidecar that fits, as data; the engine that it speaks of is no engine."""
    opened = exactile.open_bundle(bundle)
    inputs, outputs = engine_tensors(opened.model, role, batch=batch, rows=rows, columns=columns)
    plan = f"{role}-made-up".encode()
    return {
        "format": "exactile.engine",
        "version": 1,
        "made_by": "a test",
        "backend": "tensorrt-rtx",
        "backend_version": "1.7.1.116",
        "compute_capabilities": [[8, 6], [8, 9]],
        "precision": "fp32",
        "role": role,
        "batch": batch,
        "rows": list(rows),
        "columns": columns,
        "inputs": {name: {"shape": list(spec.shape), "dtype": spec.dtype} for name, spec in inputs.items()},
        "outputs": {name: {"shape": list(spec.shape), "dtype": spec.dtype} for name, spec in outputs.items()},
        "plan": f"{role}.plan",
        "plan_bytes": len(plan),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "onnx_sha256": ZEROS,
        "model_sha256": model_digest(opened.file),
        "workspace_bytes": None,
        "optimization_level": None,
        **changes,
    }


def put(bundle, sidecar, name=None) -> Path:
    """Write the sidecar and what it speaks of."""
    folder = bundle / "engines"
    folder.mkdir(exist_ok=True)
    role = sidecar["role"]
    (folder / f"{role}.plan").write_bytes(f"{role}-made-up".encode())
    path = folder / (name or f"{role}.json")
    path.write_text(json.dumps(sidecar))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    convert(onnx_file(folder, "unet_d2"), folder / "unet.bundle", image_dtype="uint16")
    return folder / "unet.bundle"


@pytest.fixture
def bundle(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "copied"))


def found(bundle):
    model = exactile.open_bundle(bundle).model
    return model.engines, model.engines_refused


def test_a_bundle_without_engines_has_none(bundle):
    assert found(bundle) == ((), ())


def test_engines_are_found_with_all_that_is_said_of_them(bundle):
    put(bundle, described(bundle, batch=2, workspace_bytes=1 << 30, optimization_level=3))
    put(bundle, described(bundle, "body", rows=(32, 32)))
    put(bundle, described(bundle, "last", rows=(4, 32)))
    engines, refused = found(bundle)
    assert refused == ()
    body, last, tile = engines
    assert (tile.role, tile.batch, tile.rows, tile.columns) == ("tile", 2, (96, 96), 64)
    assert tile.compute_capabilities == ((8, 6), (8, 9))
    assert tile.inputs["exactile_image"] == TensorSpec(shape=(2, 96, 64, 3, 2), dtype="uint8")
    assert tile.plan.read_bytes() == b"tile-made-up"
    assert tile.plan_sha256 == hashlib.sha256(b"tile-made-up").hexdigest()
    assert last.inputs["exactile_image"].shape == (-1, 64, 3, 2)
    assert last.rows == (4, 32)
    carries = {name: spec for name, spec in body.outputs.items() if name != "exactile_result"}
    assert carries
    assert {name.replace("_out", "_in") for name in carries} == set(body.inputs) - {"exactile_image"}


def test_carried_rows_may_be_of_half_precision_and_nothing_else(bundle):
    body = described(bundle, "body", rows=(32, 32), precision="fp16")
    for side in ("inputs", "outputs"):
        for name, part in body[side].items():
            if name.startswith("carry") and part["dtype"] == "float32":
                part["dtype"] = "float16"
    put(bundle, body)
    engines, refused = found(bundle)
    assert refused == ()
    assert "float16" in {spec.dtype for spec in engines[0].inputs.values()}
    body["outputs"]["exactile_result"]["dtype"] = "float16"
    put(bundle, body)
    assert found(bundle)[0] == ()


WRONG = {
    "another model": (
        {"model_sha256": ZEROS},
        "it was built for another model, or for this one before it was converted again",
    ),
    "newer": ({"version": 2}, "it has version 2 and this exactile reads up to 1: update exactile"),
    "other format": ({"format": "exactile.bundle"}, "its format is 'exactile.bundle', not 'exactile.engine'"),
    "unknown field": ({"color": "red"}, "damaged: Object contains unknown field `color`"),
    "path in a name": ({"plan": "../../evil.plan"}, "damaged: Expected `str` matching regex"),
    "absolute name": ({"plan": "/etc/passwd.plan"}, "damaged"),
    "hidden name": ({"plan": ".evil.plan"}, "damaged"),
    "other engine's name": ({"plan": "body.plan"}, "it describes body.plan, not the engine beside it"),
    "size": ({"plan_bytes": 5}, "tile.plan has 12 bytes where 5 were written; build it again"),
    "negative size": ({"plan_bytes": -1}, "damaged"),
    "hash": ({"plan_sha256": "xyz"}, "damaged"),
    "backend": ({"backend": "openvino"}, "damaged"),
    "version of the backend": ({"backend_version": "1.7; rm -rf /"}, "damaged"),
    "capability": ({"compute_capabilities": [[8, 600000]]}, "damaged"),
    "precision": ({"precision": "int4"}, "damaged"),
    "role": ({"role": "middle"}, "damaged"),
    "batch": ({"batch": 0}, "damaged"),
    "huge batch": ({"batch": 1 << 40}, "damaged"),
    "other batch": ({"batch": 2}, "exactile_image is uint8 [96, 64, 3, 2] where the contract asks for uint8 [2, 96,"),
    "rows": ({"rows": [0, 0]}, "damaged"),
    "rows of the wrong order": ({"rows": [96, 64]}, "96 to 64 rows are no rows of a tile engine"),
    "rows that vary": ({"rows": [64, 96]}, "64 to 96 rows are no rows of a tile engine"),
    "rows that are not accepted": ({"rows": [97, 97]}, "does not accept 97 to 97 rows of 64 columns"),
    "too few columns": ({"columns": 0}, "damaged"),
    "other rows": ({"rows": [100, 100]}, "where the contract asks for uint8 [100, 64, 3, 2]"),
    "huge columns": ({"columns": 1 << 62}, "damaged"),
    "no tensors": ({"inputs": {}}, "damaged"),
    "level": ({"optimization_level": -3}, "damaged"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_sidecar_that_does_not_fit_is_refused_and_the_bundle_opens(bundle, case):
    changes, reason = WRONG[case]
    sidecar = described(bundle) | changes
    put(bundle, sidecar | {"role": "tile"}).write_text(json.dumps(sidecar))
    engines, refused = found(bundle)
    assert engines == ()
    assert refused[0].startswith("tile.json: ")
    assert reason in refused[0]
    assert len(refused) == 1


@pytest.mark.parametrize(("role", "rows"), [("first", (8, 8)), ("last", (0, 8)), ("tile", (0, 0))])
def test_strips_lower_than_the_network_needs_are_refused(bundle, role, rows):
    sidecar = described(bundle, role, rows=(32, 32)) | {"rows": [max(1, row) for row in rows]}
    put(bundle, sidecar)
    engines, refused = found(bundle)
    assert engines == ()
    assert "too few for a" in refused[0] or "does not accept" in refused[0]


def tensor(shape, dtype="uint8") -> dict:
    return {"shape": shape, "dtype": dtype}


@pytest.mark.parametrize(
    ("side", "name", "part", "reason"),
    [
        ("inputs", "exactile_image", tensor([96, 64, 3]), "exactile_image is uint8 [96, 64, 3] where"),
        ("inputs", "exactile_image", tensor([96, 64, 3, 2], "float32"), "exactile_image is float32"),
        ("inputs", "exactile_image", tensor([96, 64, 1, 2]), "[96, 64, 1, 2] where the contract asks for"),
        ("inputs", "more", tensor([1]), "it has more, which the contract does not"),
        ("inputs", "exactile_image", None, "it has no exactile_image"),
        ("inputs", "exactile_image", tensor([1 << 40]), "damaged"),
        ("inputs", "exactile_image", tensor([1] * 9), "damaged"),
        ("inputs", "exactile_image", tensor([]), "damaged"),
        ("inputs", "exactile_image", tensor([96, 64, 3, 2], "object"), "damaged"),
        ("outputs", "exactile_result", tensor([95, 64]), "exactile_result is uint8 [95, 64] where"),
        ("outputs", "exactile_result", tensor([-1, 64]), "exactile_result is uint8 [-1, 64] where"),
    ],
)
def test_tensors_that_are_not_the_contracts_are_refused(bundle, side, name, part, reason):
    sidecar = described(bundle)
    sidecar[side][name] = part
    if part is None:
        sidecar[side] = {"other": tensor([1])}
    put(bundle, sidecar)
    engines, refused = found(bundle)
    assert engines == ()
    assert reason in refused[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"format": "exactile.engine"}'])
def test_what_is_no_sidecar_is_refused(bundle, content):
    put(bundle, described(bundle)).write_bytes(content)
    engines, refused = found(bundle)
    assert engines == ()
    assert "tile.json: it is damaged" in refused[0]
    assert all(character.isprintable() for character in refused[0])


def test_a_huge_sidecar_is_not_read(bundle):
    put(bundle, described(bundle)).write_bytes(b" " * ((1 << 20) + 1))
    assert "has 1048577 bytes, too many" in found(bundle)[1][0]


def test_a_missing_plan_is_told(bundle):
    put(bundle, described(bundle))
    (bundle / "engines" / "tile.plan").unlink()
    assert found(bundle) == ((), ("tile.json: tile.plan is missing; build it again",))


def test_files_that_belong_to_no_engine_are_told(bundle):
    put(bundle, described(bundle))
    for name in ("alone.plan", ".tile.plan.1a2b.part", "readme.txt"):
        (bundle / "engines" / name).touch()
    engines, refused = found(bundle)
    assert len(engines) == 1
    assert refused == (
        ".tile.plan.1a2b.part: left over from an interrupted build; it can be removed",
        "alone.plan: it belongs to no engine",
        "readme.txt: it belongs to no engine",
    )


def test_links_that_lead_out_are_refused(bundle, tmp_path):
    sidecar = put(bundle, described(bundle))
    plan = bundle / "engines" / "tile.plan"
    plan.rename(tmp_path / "elsewhere.plan")
    plan.symlink_to(tmp_path / "elsewhere.plan")
    assert "tile.plan is a link" in found(bundle)[1][0]
    sidecar.rename(tmp_path / "elsewhere.json")
    sidecar.symlink_to(tmp_path / "elsewhere.json")
    assert "tile.json: it is a link" in found(bundle)[1][0]
    shutil.rmtree(bundle / "engines")
    (tmp_path / "engines").mkdir()
    (bundle / "engines").symlink_to(tmp_path / "engines")
    assert "engines is a link that leads out of the bundle" in found(bundle)[1][0]


def test_a_folder_of_countless_files_is_refused(bundle):
    (bundle / "engines").mkdir()
    for number in range(MOST_FILES + 1):
        (bundle / "engines" / f"{number}.plan").touch()
    assert f"holds {MOST_FILES + 1} files" in found(bundle)[1][0]


def test_engines_that_is_a_file_is_refused(bundle):
    (bundle / "engines").write_text("no folder")
    assert found(bundle)[1] == ("engines cannot be read: Not a directory",)


def test_an_unreadable_folder_is_told(bundle, monkeypatch):
    put(bundle, described(bundle))

    def denied(_self):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "iterdir", denied)
    assert found(bundle)[1] == ("engines cannot be read: Permission denied",)


def test_strips_of_a_model_without_them_are_refused(made, tmp_path):
    convert(onnx_file(tmp_path, "unet_d2"), tmp_path / "half.bundle", image_dtype="uint16", precision="fp16")
    body = described(made, "body", rows=(32, 32))
    body["model_sha256"] = model_digest(exactile.open_bundle(tmp_path / "half.bundle").file)
    put(tmp_path / "half.bundle", body)
    assert (
        "body.json: the model has no strips: of fewer bits, its strips hold the arithmetic of"
        in found(tmp_path / "half.bundle")[1][0]
    )


def test_a_model_converted_again_in_another_way_has_no_engines_any_more(made, bundle, tmp_path):
    put(bundle, described(bundle))
    convert(onnx_file(tmp_path, "unet_d2"), tmp_path / "other.bundle", image_dtype="uint8")
    shutil.copytree(bundle / "engines", tmp_path / "other.bundle" / "engines")
    engines, refused = found(tmp_path / "other.bundle")
    assert engines == ()
    assert "built for another model" in refused[0]


def test_the_models_hash_is_that_of_graphs_and_weights(bundle):
    file = exactile.open_bundle(bundle).file
    data = msgspec.to_builtins(file)
    same = msgspec.convert(data | {"model": "another name", "notes": ["x"]}, ContractFile)
    assert model_digest(same) == model_digest(file)
    for name in ("graph.onnx", "strip-body.onnx", "weights.bin"):
        files = data["files"] | {name: {"bytes": 1, "sha256": ZEROS}}
        assert model_digest(msgspec.convert(data | {"files": files}, ContractFile)) != model_digest(file)


def test_a_sidecar_is_written_as_it_is_read(bundle):
    sidecar = described(bundle, "last", rows=(4, 32))
    file = msgspec.convert(sidecar, EngineFile)
    assert msgspec.json.decode(encode_engine_file(file), type=EngineFile) == file
    assert json.loads(encode_engine_file(file)) == sidecar


def test_the_session_runs_a_bundle_whose_engines_are_damaged(bundle):
    put(bundle, described(bundle)).write_bytes(b"{")
    sink = exactile.ArraySink()
    image = np.zeros((64, 64, 3), np.uint16)
    exactile.Session(exactile.open_bundle(bundle).model).segment(exactile.ArraySource(image), sink)
    assert sink.result.shape == (64, 64)


def test_info_lists_engines_and_what_is_not_used(bundle):
    put(bundle, described(bundle, batch=2))
    put(bundle, described(bundle, "last", rows=(4, 32), model_sha256=ZEROS))
    said = " ".join(command("info", bundle).stdout.split())
    assert "engine fp32 tile, 2 x 96 x 64 pixels, tensorrt-rtx 1.7.1.116, compute capability 8.6, 8.9" in said
    assert "not used last.json: it was built for another model" in said
    data = json.loads(command("info", bundle, "--json").stdout)
    assert data["engines"][0]["batch"] == 2
    assert "last.json: " in data["engines_refused"][0]
    assert data["format"] == "exactile.bundle"


def test_info_tells_an_engine_that_was_changed(bundle):
    put(bundle, described(bundle))
    (bundle / "engines" / "tile.plan").write_bytes(b"TILE-made-up")
    assert len(exactile.open_bundle(bundle).model.engines) == 1
    assert "CHANGED fp32 tile" in " ".join(command("info", bundle).stdout.split())


def test_the_bundles_graphs_do_not_mention_engines(bundle):
    assert "engine" not in (bundle / "contract.json").read_text()
    assert not any("engine" in prop.key for prop in onnx.load(bundle / "graph.onnx").metadata_props)
