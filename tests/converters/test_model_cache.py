"""What an ONNX file was deployed to is kept: later runs give the same, without the converter, and never another's."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import exactile
from exactile.cache import model_file, models, rules
from exactile.cache.model_file import DamagedError, NotStorableError, pack, read
from exactile.cache.models import ModelCache
from exactile.cli.main import app
from exactile.contract import DeployedModel, ImageStatistics
from exactile.doctor.cache import cache as doctors_view
from exactile.errors import ExactileError, ModelError, OptionError, PlanError
from exactile.machine.cache_folder import FOLDER_VARIABLE, SIZE_VARIABLE
from exactile.request import kept_models
from exactile.request.model_choice import ModelChoice, why_not_run_before
from exactile.request.normalization import NormalizationNumbers
from exactile.request.onnx_models import when_whole
from exactile.runs.run_record import graph_hash
from exactile.sinks.tiff.sink import TiffSink
from exactile_converters import deploy as converter
from tests.geometry.test_own_sizes import network
from tests.support import whole_nets
from tests.support.command import exactile as command
from tests.support.nets import onnx_file

SIZE = (77, 58)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(SIZE_VARIABLE, "64MiB")
    return tmp_path / "cache" / "models"


def small_net(path: Path, *, seed: int = 0, external: bool = False, stored_as: str = "weights.bin") -> Path:
    """Two outputs, ``y`` and ``z``, (N, 2, H, W); 3 channels."""
    kernels = np.random.default_rng(seed).normal(size=(2, 2, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", f"w{name}"], [name], pads=[1] * 4) for name in "yz"],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2, "H", "W"]) for name in "yz"],
        [numpy_helper.from_array(kernel, f"w{name}") for name, kernel in zip("yz", kernels, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=external, location=stored_as, size_threshold=0)
    return path


def picture(height: int = SIZE[0], width: int = SIZE[1], dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(5).integers(0, 200, (height, width, 3)).astype(dtype)


@pytest.fixture
def net(tmp_path) -> Path:
    return small_net(tmp_path / "net.onnx")


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """Names of the files that the converter read."""
    found: list[str] = []
    honest = converter.load_network
    monkeypatch.setattr(
        converter, "load_network", lambda path, **options: (found.append(path.name), honest(path, **options))[1]
    )
    return found


def deployed_for(
    path: Path,
    dtype: str = "uint8",
    size: tuple[int, int] = SIZE,
    *,
    cache: bool = True,
    plan: str = "auto",
    tiles: bool = False,
    verify: bool = False,
    normalization: NormalizationNumbers | None = None,
    **wish,
) -> DeployedModel:
    """What a run of its own would be given; one pass fits."""
    options = {"output": "raw", "threshold": None, "activation": None, "output_name": None, **wish}
    choice = ModelChoice(
        path=path,
        normalization=normalization or NormalizationNumbers(),
        strips=plan in ("auto", "strip"),
        whole=when_whole(plan, tiles=tiles),
        unverified=why_not_run_before(plan, no_verify=not verify),
        cache=cache,
        **options,
    )
    return choice.load()(dtype, size, lambda _model: True)


def same(one: object, other: object) -> bool:
    """Field by field, bytes and arrays included."""
    if type(one) is not type(other) and not (isinstance(one, dict) and isinstance(other, dict)):
        return False
    if is_dataclass(one):
        return all(same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()
    return one == other


def check_kept(loads: list[str], path: Path, *arguments, **options) -> DeployedModel:
    """A first and a second run are given what one without a cache is, and only the first reads the file."""
    plain = deployed_for(path, *arguments, cache=False, **options)
    for read_then in (True, False):
        loads.clear()
        assert same(deployed_for(path, *arguments, **options), plain)
        assert bool(loads) == read_then
    return plain


VARIANTS = {
    "none": {},
    "scale": {"normalization": NormalizationNumbers(scale=(2.0,))},
    "scale of each channel": {"normalization": NormalizationNumbers(scale=(1.0, 1.0, 2.0))},
    "mean": {"normalization": NormalizationNumbers(mean=(2.0,))},
    "std": {"normalization": NormalizationNumbers(std=(4.0,))},
    "z-score": {"normalization": NormalizationNumbers(statistics=ImageStatistics(kind="zscore"))},
    "percentile": {"normalization": NormalizationNumbers(statistics=ImageStatistics(kind="percentile"))},
    "other percentiles": {"normalization": NormalizationNumbers(statistics=ImageStatistics(kind="percentile", low=2))},
    "labels": {"output": "labels"},
    "multilabel": {"output": "multilabel"},
    "threshold": {"output": "multilabel", "threshold": 0.7},
    "probabilities": {"output": "probabilities"},
    "activation": {"output": "probabilities", "activation": "softmax"},
    "output name": {"output_name": "z"},
    "tiles alone": {"plan": "tile"},
    "one pass": {"plan": "whole"},
    "verified": {"verify": True},
    "uint16": {"dtype": "uint16"},
    "float32": {"dtype": "float32"},
}


def test_every_option_is_part_of_the_key(net, loads):
    """Of all that were kept before, none is taken for another; how a claim is known is told in the contract."""
    plain = {name: deployed_for(net, cache=False, **options) for name, options in VARIANTS.items()}
    names = list(plain)
    for number, one in enumerate(names):
        assert not any(same(plain[one], plain[other]) for other in names[:number]), one
    for read_then in (True, False):
        for name, options in VARIANTS.items():
            loads.clear()
            assert same(deployed_for(net, **options), plain[name]), name
            assert bool(loads) == read_then, name


def test_results_are_those_without_a_cache(net, loads):
    options = {"progress": False, "output": "raw", "verify": False}
    plain = exactile.segment(net, picture(), cache=False, **options)
    for _ in range(2):
        assert np.array_equal(exactile.segment(net, picture(), **options), plain)
    assert loads == ["net.onnx"] * 2


def changed_weights(path: Path) -> None:
    small_net(path, seed=1)


def other_name(path: Path) -> Path:
    return Path(shutil.copy(path, path.with_name("other.onnx")))


def test_changed_weights_are_seen_though_the_file_looks_the_same(net, loads):
    """The same size and time stamps."""
    before, state = check_kept(loads, net), net.stat()
    changed_weights(net)
    os.utime(net, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert net.stat().st_size == state.st_size
    assert not same(check_kept(loads, net), before)


def test_changed_external_weights_are_seen(tmp_path, loads):
    path, data = small_net(tmp_path / "net.onnx", external=True), tmp_path / "weights.bin"
    before, good = check_kept(loads, path), data.read_bytes()
    data.write_bytes(np.frombuffer(good, np.float32)[::-1].tobytes())
    assert not same(check_kept(loads, path), before)
    data.write_bytes(good)
    loads.clear()
    assert same(deployed_for(path), before)
    assert not loads
    data.unlink()
    with pytest.raises(ModelError, match="weights"):
        deployed_for(path)


def test_the_name_is_part_of_the_key(net, loads):
    """It is told in errors and summaries."""
    check_kept(loads, net)
    check_kept(loads, other_name(net))


@pytest.mark.parametrize("part", ["rules", "a package"])
def test_other_code_and_other_packages_deploy_anew(net, loads, monkeypatch, part):
    check_kept(loads, net)
    if part == "rules":
        monkeypatch.setattr(kept_models, "rules_digest", lambda: "other rules")
    else:
        rules.rules_digest.cache_clear()
        monkeypatch.setattr(rules, "_version", lambda name: "9.9" if name == "onnx-ir" else "1")
    try:
        check_kept(loads, net)
    finally:
        rules.rules_digest.cache_clear()


def test_the_rules_are_those_of_all_files(tmp_path, monkeypatch):
    """A changed, a moved and a new file of either package are seen."""
    package = tmp_path / "exactile_converters"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "room" / "a.py").write_text("a = 1")
    monkeypatch.setattr(rules, "find_spec", lambda _name: type("Spec", (), {"origin": str(package / "__init__.py")}))
    digest = rules.rules_digest.__wrapped__
    found = [digest()]
    (package / "room" / "a.py").write_text("a = 2")
    found.append(digest())
    (package / "room" / "a.py").rename(package / "room" / "b.py")
    found.append(digest())
    (package / "c.py").touch()
    found.append(digest())
    assert len(set(found)) == 4


def test_a_file_that_changes_while_it_is_read_is_not_kept(net, cache, monkeypatch):
    """What was read is not what was looked for: under its name nothing is kept."""
    before, honest, other = net.read_bytes(), converter.load_network, small_net(net.with_name("o.onnx"), seed=1)

    def replacing(path, **options):
        path.write_bytes(other.read_bytes())
        return honest(path, **options)

    monkeypatch.setattr(converter, "load_network", replacing)
    changed = deployed_for(net)
    monkeypatch.setattr(converter, "load_network", honest)
    net.write_bytes(before)
    plain = deployed_for(net, cache=False)
    assert not same(plain, changed)
    assert same(deployed_for(net), plain)


def deployed(name: str, path: Path) -> DeployedModel:
    match name:
        case "in passes":
            path.write_bytes(whole_nets.instance_norm())
            return converter.deploy_in_passes(converter.load_network(path), image_dtype="uint8", image_size=SIZE)
        case "passes for all sizes":
            path.write_bytes(whole_nets.skipping())
            network = converter.load_network(path)
            return converter.deploy_in_passes(network, image_dtype="uint16", one_pass=True, output="raw")
        case "one pass":
            path.write_bytes(whole_nets.attention())
            return converter.deploy_whole(converter.load_network(path), image_dtype="uint8", image_size=(32, 32))
    return converter.deploy(converter.load_network(onnx_file(path.parent, name)), image_dtype="uint8")


def strided() -> bytes:
    """Of more pairs of remainders than strips are built for."""
    return network((("Conv", {"kernel_shape": [7, 7], "strides": [5, 5], "auto_pad": "SAME_LOWER"}),))


KINDS = ("in passes", "passes for all sizes", "one pass", "unet_d2", "unet_bilinear_d2", "valid", "super_resolution")


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_read_as_it_was_written(tmp_path, name):
    """All of it, bit for bit; what was one object stays one, which engines are shared by."""
    model, path = deployed(name, tmp_path / "net.onnx"), tmp_path / "file"
    with path.open("wb") as file:
        pack(model).write(file)
    found = read(path)
    assert path.stat().st_size == pack(model).size
    assert same(model, found)
    assert graph_hash(found) == graph_hash(model)
    for strips in (model.strips, *model.other_strips.values()):
        if strips is not None:
            again = found.strips if strips is model.strips else None
            keys = [len({id(graph) for graph in one.graphs.values()}) for one in (strips, again or strips)]
            assert keys[0] == keys[1]


def test_weights_are_written_once(tmp_path):
    model = deployed("unet_d3", tmp_path / "net.onnx")
    weights = sum(array.nbytes for array in model.strips.weights.values() if array.nbytes >= 4096)
    inside = len(model.graph)
    assert inside > weights > inside // 2
    assert pack(model).size < len(model.graph) + sum(len(one.graph) for one in model.strips.graphs.values()) + 60_000


@pytest.mark.parametrize(
    "value", [np.array([object()]), {1, 2}, Fraction, np.float32(1), (1, b"a", {"b": np.datetime64(1, "s")}), 1j]
)
def test_what_files_do_not_hold_is_refused(value):
    with pytest.raises(NotStorableError):
        pack(value)


def test_no_byte_of_a_file_may_be_another(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        pack("something").write(file)
    good = path.read_bytes()
    assert read(path) == "something"
    for index in range(len(good)):
        path.write_bytes(good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :])
        with pytest.raises(DamagedError):
            read(path)
        path.write_bytes(good[:index])
        with pytest.raises(DamagedError):
            read(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(DamagedError):
        read(path)


@pytest.mark.parametrize("damage", ["flipped", "cut off", "empty", "another format"])
def test_a_damaged_file_is_made_anew(net, cache, loads, damage):
    check_kept(loads, net)
    kept = {path: path.read_bytes() for path in cache.iterdir()}
    changes: dict[str, Callable[[bytes], bytes]] = {
        "flipped": lambda data: data[:-1] + bytes([data[-1] ^ 4]),
        "cut off": lambda data: data[:-9],
        "empty": lambda _data: b"",
        "another format": lambda _data: b"{}" * 100,
    }
    for path, data in kept.items():
        path.write_bytes(changes[damage](data))
    check_kept(loads, net)
    assert {path: path.read_bytes() for path in cache.iterdir()} == kept


def test_a_folder_that_cannot_be_written_costs_time_only(net, cache, loads, capsys):
    cache.parent.write_text("a file where the folder should be")
    plain = deployed_for(net, cache=False)
    for _ in range(2):
        loads.clear()
        assert same(deployed_for(net), plain)
        assert loads
    assert capsys.readouterr().err == ""


def test_a_full_disk_costs_time_only(net, cache, loads, capsys, monkeypatch):
    def full(_packed, file) -> None:
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(model_file.Packed, "write", full)
    assert same(deployed_for(net), deployed_for(net, cache=False))
    assert loads
    assert list(cache.iterdir()) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("off", ["variable", "option"])
def test_the_cache_can_be_turned_off(net, cache, loads, monkeypatch, off):
    if off == "variable":
        monkeypatch.setenv(SIZE_VARIABLE, "0")
    for _ in range(2):
        loads.clear()
        deployed_for(net, cache=off == "variable")
        assert loads
    assert not cache.exists()


def test_a_size_that_is_none_is_refused(net, monkeypatch):
    monkeypatch.setenv(SIZE_VARIABLE, "much")
    with pytest.raises(OptionError, match=f"{SIZE_VARIABLE} takes an amount"):
        deployed_for(net)


def test_the_least_recently_used_goes_first(tmp_path):
    large = "x" * 1000
    size = pack(large).size
    cache = ModelCache(tmp_path / "models", 4 * size)
    for index in range(4):
        assert cache.keep(f"{index}", large)
        os.utime(tmp_path / "models" / f"{index}.model", (index, index))
    assert cache.usage() == (4, 4 * size)
    assert cache.kept("0") == large  # used now
    assert cache.keep("4", large)
    assert [cache.kept(f"{index}") is not None for index in range(5)] == [True, False, True, True, True]
    assert not cache.keep("5", large + "y")  # more than a quarter of it
    assert cache.usage() == (4, 4 * size)


def test_what_a_killed_process_left_is_removed(tmp_path):
    cache = ModelCache(tmp_path, 1 << 20)
    old, new = (tmp_path / f".{name}.model.00.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"part")
    os.utime(old, (0, 0))
    assert cache.keep("a", "text")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_folder_of_images_of_many_sizes_does_not_take_all_room(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_models, "MOST_SIZES", 2)
    path = small_net(tmp_path / "net.onnx")
    kept = kept_models.KeptModels.of(path, "", ModelCache(tmp_path / "m", 1 << 20))
    assert [kept.keep("model", "kind", "uint8", (size, size)) for size in (1, 2, 3)] == [True, True, False]
    assert kept.keep("model", "kind", "uint8")


def test_a_large_model_is_not_kept(net, cache, loads, monkeypatch):
    monkeypatch.setenv(SIZE_VARIABLE, "3000")
    for _ in range(2):
        loads.clear()
        deployed_for(net)
        assert loads
    assert not cache.exists() or sum(path.stat().st_size for path in cache.iterdir()) < 3000


SIZED = {
    "passes": (whole_nets.instance_norm, {"plan": "tile", "tiles": True}),
    "one pass, which passes could do": (whole_nets.instance_norm, {}),
    "one pass alone": (whole_nets.attention, {"plan": "whole"}),
    "strips for the size": (strided, {}),
}


@pytest.mark.parametrize("kind", SIZED)
def test_models_for_one_size_are_kept_by_their_size(tmp_path, loads, kind):
    made, options = SIZED[kind]
    path = tmp_path / "net.onnx"
    path.write_bytes(made())
    sizes = [(93, 71), (90, 77)]
    for size in sizes:
        model = check_kept(loads, path, "uint8", size, **options)
        assert size in (model.image_size, model.contract.only_size)
    loads.clear()
    for size in sizes:
        deployed_for(path, "uint8", size, **options)
    assert not loads


def test_that_one_pass_is_none_is_kept(tmp_path, loads, monkeypatch):
    """Then passes are taken, and nobody asks again."""
    path = tmp_path / "net.onnx"
    path.write_bytes(whole_nets.instance_norm())
    asked = []

    def refusing(*_arguments, **_options):
        asked.append(1)
        raise PlanError("no such size")

    monkeypatch.setattr(converter, "deploy_whole", refusing)
    for _ in range(2):
        assert deployed_for(path).levels
    assert len(asked) == 1


def refusal(path: Path, **options) -> str:
    with pytest.raises(ExactileError) as error:
        deployed_for(path, **options)
    return f"{type(error.value).__name__}: {error.value}"


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe", "a picture", "garbage", "outside", "of a device"])
def test_what_is_no_model_is_refused_as_without_a_cache(tmp_path, kind):
    """And not waited for: a pipe and a device have no end."""
    path = tmp_path / "net.onnx"
    match kind:
        case "a folder":
            (tmp_path / "contract.json").mkdir()
            path = tmp_path / "contract.json"
        case "a pipe":
            os.mkfifo(path)
        case "a picture":
            tifffile.imwrite(path, picture())
        case "garbage":
            path.write_bytes(b"\x08\x07 no model at all")
        case "outside" | "of a device":
            model = onnx.load(str(small_net(path, external=True)), load_external_data=False)
            for tensor in model.graph.initializer:
                tensor.external_data[0].value = "/dev/zero" if kind == "of a device" else "../weights.bin"
            path.write_bytes(model.SerializeToString())
    assert refusal(path) == refusal(path, cache=False) == refusal(path)


def test_options_that_contradict_each_other_are_refused_when_a_model_is_kept(net, loads):
    check_kept(loads, net)
    for numbers in (
        {"std": [0.0]},
        {"scale": [2.0], "statistics": ImageStatistics(kind="zscore")},
        {"mean": [1.0] * 2},
    ):
        options = {"normalization": NormalizationNumbers(**numbers)}
        assert refusal(net, **options) == refusal(net, cache=False, **options)


CLI = {
    "tiles or strips": (None, []),
    "passes": (whole_nets.instance_norm, ["--plan", "tile", "--tile", "24"]),
    "one pass": (whole_nets.attention, ["--plan", "whole"]),
}


@pytest.mark.parametrize("kind", CLI)
def test_a_second_run_does_not_import_the_converter(tmp_path, monkeypatch, kind):
    """Also where the result is replaced, and the files that hold weights are to be known."""
    made, options = CLI[kind]
    path = small_net(tmp_path / "net.onnx", external=True)
    if made is not None:
        path.write_bytes(made())
    tifffile.imwrite(tmp_path / "in.tif", picture(32, 48), photometric="rgb")
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")

    def run(*more: str) -> tuple[bytes, set[str]]:
        target = tmp_path / "out.npy"
        done = command(
            "run", path, tmp_path / "in.tif", "-o", target, "--overwrite", "--output", "raw", *options, *more
        )
        assert done.returncode == 0, done.stderr
        return target.read_bytes(), {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}

    first, imported = run()
    assert {"onnx", "onnx_ir", "exactile_converters"} <= imported
    second, imported = run()
    assert "onnxruntime" in imported
    assert not {"onnx", "onnx_ir", "exactile_converters", "onnxscript", "google"} & imported
    assert second == first
    assert kind != "tiles or strips" or run("--no-cache")[0] == first


def test_processes_at_the_same_time_disturb_no_other(net, cache, tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", picture(), photometric="rgb")
    targets = [tmp_path / f"{index}.npy" for index in range(2)]
    running = [
        subprocess.Popen([sys.executable, "-m", "exactile", "run", net, tmp_path / "in.tif", "-o", target])
        for target in targets
    ]
    assert [one.wait(timeout=300) for one in running] == [0, 0]
    assert len({target.read_bytes() for target in targets}) == 1
    assert all(path.suffix == ".model" for path in cache.iterdir())


@pytest.mark.parametrize("second", ["kept", "--no-cache"])
def test_a_run_goes_on_whether_a_model_was_kept_or_not(tmp_path, monkeypatch, second):
    """The graph is the same, bit for bit."""
    path = onnx_file(tmp_path, "unet_d2")
    tifffile.imwrite(tmp_path / "in.tif", picture(190, 210), photometric="rgb")
    options = ["--tile", "64", "--no-progress"]
    whole = CliRunner().invoke(app, ["run", str(path), f"{tmp_path}/in.tif", "-o", f"{tmp_path}/whole.tif", *options])
    assert whole.exit_code == 0, whole.output
    shutil.rmtree(tmp_path / "cache" / "models")
    honest, left = TiffSink.write, [5]

    def stopping(sink, box, block) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.EIO, "pulled out")
        honest(sink, box, block)

    arguments = ["run", str(path), f"{tmp_path}/in.tif", "-o", f"{tmp_path}/out.tif", *options]
    monkeypatch.setattr(TiffSink, "write", stopping)
    assert CliRunner().invoke(app, arguments).exit_code != 0
    monkeypatch.setattr(TiffSink, "write", honest)
    more = ["--no-cache"] if second == "--no-cache" else []
    done = CliRunner().invoke(app, [*arguments, "--resume", "--json", *more])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_the_users_folder_is_told(monkeypatch, tmp_path):
    assert ModelCache.of_user() == ModelCache(tmp_path / "cache" / models.FOLDER, 64 << 20)
    monkeypatch.delenv(SIZE_VARIABLE)
    assert ModelCache.of_user().most_bytes == 1 << 30
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert sys.platform != "linux" or ModelCache.of_user().folder == tmp_path / "home" / "exactile" / "models"
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert ModelCache.of_user() is None


def test_the_doctor_tells_of_the_folder(net, cache, monkeypatch):
    """By the variable that names it: reports hold no folders of users."""
    deployed_for(net)
    found = doctors_view()
    size = sum(path.stat().st_size for path in cache.iterdir())
    assert found.facts == {
        "folder": "$EXACTILE_CACHE_DIR/models",
        "files": len(list(cache.iterdir())),
        "bytes": size,
        "most_bytes": 64 << 20,
    }
    assert (found.status, str(cache.parent) in found.says) == ("ok", False)
    shutil.rmtree(cache.parent)
    assert doctors_view().status == "ok"
    cache.parent.write_text("a file where the folder should be")
    assert doctors_view().status == "warning"
    monkeypatch.setenv(SIZE_VARIABLE, "0")
    assert doctors_view().status == "not applicable"
    monkeypatch.setenv(SIZE_VARIABLE, "much")
    assert doctors_view().status == "failed"
