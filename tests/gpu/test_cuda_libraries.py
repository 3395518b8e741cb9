"""ONNX Runtime's CUDA provider and the CUDA libraries it needs: found wherever they are, the right version, in order.

In processes of their own, with small libraries in place of the real ones (``cuda_stand_ins.py``); one test takes the
real provider where it is at hand.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exactile.engines.shared_library import read_dynamic
from tests.cuda_runtime.library import undefined_symbols
from tests.support import cuda_stand_ins as build
from tests.support.folders import ROOT

REAL = "EXACTILE_TEST_ONNXRUNTIME_GPU"
"""The folder into which a wheel of onnxruntime-gpu was unpacked."""

LOAD = """
import json
from exactile.engines import cuda_provider
from exactile.errors import DeviceError
{before}
try:
    ort = cuda_provider.load_cuda_library()
    opened = cuda_provider.cuda_libraries(ort)
except DeviceError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps([[each.name, each.path, each.source] for each in opened]))
"""

if shutil.which("gcc") is None or sys.platform != "linux":
    pytest.skip("gcc on Linux builds the libraries that stand in for CUDA's", allow_module_level=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """Folders: a driver, a site with onnxruntime alone, and sites and toolkits with CUDA's libraries."""
    root = tmp_path_factory.mktemp("cuda")
    toolkit = root / "toolkit"
    needed = build.cuda_libraries(toolkit / "lib64")
    build.driver(root / "driver")
    build.onnxruntime_gpu(root / "ort", [*needed, root / "driver" / "libcuda.so.1"])
    shutil.copytree(toolkit / "lib64", root / "base" / "nvidia" / "cu13" / "lib")
    build.cudnn(root / "base" / "nvidia" / "cudnn" / "lib", 13)
    build.cudnn(root / "older" / "nvidia" / "cudnn" / "lib", 12)
    (root / "older" / "nvidia_cudnn_cu12-9.9.0.dist-info").mkdir()
    return {path.name: path for path in root.iterdir()}


def load(sites: list[Path], *, before: str = "", loader: list[Path] = (), **environment: str) -> list | str:
    """What is opened, or the error's text, in a new process with these folders on Python's path."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CUDA_PATH", "CUDA_HOME", "CUDNN_PATH")}
    env = {
        **kept,
        "PYTHONPATH": os.pathsep.join(map(str, [*sites, ROOT / "runtime"])),
        "LD_LIBRARY_PATH": ":".join(map(str, loader)),
        **environment,
    }
    command = [sys.executable, "-c", LOAD.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return json.loads(done.stdout)


def paths(opened: list | str) -> dict[str, str]:
    assert isinstance(opened, list), opened
    return {name: path for name, path, _ in opened}


def test_the_provider_opened_by_itself_fails_and_before_its_host_is_there_it_crashes(made):
    """What the code under test must not do; the real one does the same."""
    provider = made["ort"] / "onnxruntime" / "capi" / build.PROVIDER
    env = {**os.environ, "LD_LIBRARY_PATH": f"{made['toolkit'] / 'lib64'}:{made['driver']}"}
    alone = f"import ctypes; ctypes.CDLL({str(provider)!r})"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=False, env=env)
    assert "undefined symbol: Provider_GetHost" in done.stderr
    between = f"import ctypes; ctypes.CDLL({str(provider.with_name(build.BETWEEN))!r}, ctypes.RTLD_GLOBAL); "
    done = subprocess.run([sys.executable, "-c", between + alone], capture_output=True, check=False, env=env)
    assert done.returncode < 0


def test_libraries_are_found_in_another_folder_of_pythons_path_than_onnxruntime(made):
    opened = load([made["ort"], made["base"]], loader=[made["driver"]])
    cuda, cudnn = made["base"] / "nvidia" / "cu13" / "lib", made["base"] / "nvidia" / "cudnn" / "lib"
    names = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10")
    expected = {**{name: str(cuda / name) for name in names}, "libcudnn.so.9": str(cudnn / "libcudnn.so.9")}
    assert paths(opened) == expected
    assert {source for *_, source in opened} == {"Python's nvidia packages"}
    assert list(paths(opened)) == [*names, "libcudnn.so.9"]


def test_without_its_host_the_provider_is_not_opened(made, tmp_path):
    """An onnxruntime that puts its host there later: the process lives, and the session has the last word."""
    site = tmp_path / "site"
    shutil.copytree(made["ort"], site)
    (site / "onnxruntime" / "__init__.py").write_text(build.MODULE.format(sets_host=False))
    assert "libcudnn.so.9" in paths(load([site, made["base"]], loader=[made["driver"]]))


def test_cudnn_for_another_cuda_is_passed_over(made):
    opened = load([made["ort"], made["older"], made["base"]], loader=[made["driver"]])
    assert paths(opened)["libcudnn.so.9"] == str(made["base"] / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9")


def test_where_there_is_none_for_this_cuda_the_error_names_what_was_passed_over(made, tmp_path):
    shutil.copytree(made["base"] / "nvidia" / "cu13", tmp_path / "nvidia" / "cu13")
    said = load([made["ort"], made["older"], tmp_path], loader=[made["driver"]])
    assert "not found: libcudnn.so.9 (passed over: " in said
    assert "libcudnn.so.9 is for CUDA 12)" in said
    assert "onnxruntime 1.31.1 needs CUDA 13.0 and cuDNN 9: pip install 'onnxruntime-gpu[cuda,cudnn]'" in said


def test_cudnn_that_does_not_tell_is_asked_and_refused(made, tmp_path):
    """As where two packages overwrote each other's files, or the system's is for another CUDA."""
    shutil.copytree(made["base"] / "nvidia" / "cu13", tmp_path / "nvidia" / "cu13")
    found = build.cudnn(tmp_path / "nvidia" / "cudnn" / "lib", 12, tells=False)
    said = load([made["ort"], tmp_path], loader=[made["driver"]])
    assert f"{found} (Python's nvidia packages) is built for CUDA 12, and ONNX Runtime's provider for CUDA 13" in said


def test_cudnn_of_another_cuda_that_the_process_has_open_is_refused(made):
    older = made["older"] / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9"
    said = load(
        [made["ort"], made["base"]], before=f"import ctypes; ctypes.CDLL({str(older)!r})", loader=[made["driver"]]
    )
    assert "(this process has it open already) is built for CUDA 12" in said
    assert "run exactile in a separate process" in said


def test_what_the_process_has_open_is_taken(made):
    cudart = made["toolkit"] / "lib64" / "libcudart.so.13"
    opened = load(
        [made["ort"], made["base"]], before=f"import ctypes; ctypes.CDLL({str(cudart)!r})", loader=[made["driver"]]
    )
    assert opened[0] == ["libcudart.so.13", str(cudart), "this process has it open already"]


def test_parts_of_cudnn_are_not_mixed_with_those_of_ld_library_path(made):
    loader = [made["driver"], made["older"] / "nvidia" / "cudnn" / "lib"]
    opened = load([made["ort"], made["base"]], loader=loader)
    assert paths(opened)["libcudnn.so.9"] == str(made["base"] / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9")


def test_the_loaders_folders_and_the_toolkits_are_looked_into(made):
    cudnn = made["base"] / "nvidia" / "cudnn" / "lib"
    opened = load([made["ort"]], loader=[made["driver"], made["toolkit"] / "lib64", cudnn])
    assert {source for *_, source in opened} == {"the system's loader"}
    assert paths(opened)["libcublas.so.13"] == str(made["toolkit"] / "lib64" / "libcublas.so.13")
    found = load([made["ort"]], loader=[made["driver"]], CUDA_PATH=str(made["toolkit"]), CUDNN_PATH=str(cudnn.parent))
    assert paths(found)["libcublas.so.13"] == str(made["toolkit"] / "lib64" / "libcublas.so.13")
    assert found[-1] == ["libcudnn.so.9", str(cudnn / "libcudnn.so.9"), "CUDNN_PATH"]


def test_a_cudnn_whose_part_is_missing_is_an_error_rather_than_the_end_of_the_process(made, tmp_path):
    shutil.copytree(made["base"] / "nvidia", tmp_path / "nvidia")
    graph = tmp_path / "nvidia" / "cudnn" / "lib" / "libcudnn_graph.so.9"
    graph.write_bytes(b"junk")
    said = load([made["ort"], tmp_path], loader=[made["driver"]])
    assert "not found: libcudnn.so.9 (passed over: " in said
    assert "file too short" in said


def test_missing_libraries_and_a_missing_driver_are_named(made):
    said = load([made["ort"]], loader=[made["driver"]])
    assert "libcublasLt.so.13, libcublas.so.13, libcurand.so.10" in said
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in said
    if subprocess.run([sys.executable, "-c", "import ctypes; ctypes.CDLL('libcuda.so.1')"], check=False,
                      capture_output=True).returncode:  # fmt: skip
        said = load([made["ort"], made["base"]])
        assert "libcuda.so.1: cannot open" in said
        assert "there is no NVIDIA driver on this machine, or none in this container" in said
        assert "pip install" not in said


def test_a_library_that_is_none_is_said_to_be_that(made, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(made["ort"], site)
    (site / "onnxruntime" / "capi" / build.PROVIDER).write_bytes(b"junk")
    assert "is no 64-bit shared library, or is damaged" in load([site, made["base"]], loader=[made["driver"]])


def test_what_a_file_needs_is_what_readelf_says():
    import numpy as np

    (extension,) = Path(np.__file__).parent.glob("_core/_multiarray_umath*.so")
    said = subprocess.run(["readelf", "-d", "-W", extension], capture_output=True, text=True, check=True).stdout
    dynamic = read_dynamic(extension)
    assert list(dynamic.needed) == re.findall(r"NEEDED.*\[(.+)\]", said)
    assert dynamic.search_path == ":".join(re.findall(r"(?:RPATH|RUNPATH).*\[(.+)\]", said))


@pytest.mark.slow
def test_the_real_provider_opens_with_cudas_libraries_in_another_folder(tmp_path):
    """With empty libraries in place of CUDA's, of the same names, symbols and versions."""
    folder = os.environ.get(REAL, "")
    provider = Path(folder, "onnxruntime", "capi", build.PROVIDER)
    if not folder or not provider.exists():
        pytest.skip(
            f"{REAL} is not the folder of an unpacked onnxruntime-gpu: pip download --no-deps onnxruntime-gpu; unzip"
        )
    symbols = undefined_symbols(provider)
    for name in read_dynamic(provider).needed:
        if name.startswith(("libcu", "libnv")):
            at = tmp_path / "driver" if name == "libcuda.so.1" else tmp_path / "nvidia" / "cu13" / "lib"
            plain = {each for each in symbols.get("", ()) if re.match(r"cu[A-Z]|curand", each)}
            _versioned(at / name, symbols.get(name, plain), versioned=name in symbols)
    build.cudnn(tmp_path / "nvidia" / "cudnn" / "lib", 13)
    alone = f"import ctypes; ctypes.CDLL({str(provider)!r})"
    loader = f"{tmp_path / 'driver'}:{tmp_path / 'nvidia' / 'cu13' / 'lib'}"
    env = {**os.environ, "LD_LIBRARY_PATH": loader}
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=False, env=env)
    assert "undefined symbol: Provider_GetHost" in done.stderr
    opened = load([Path(folder), tmp_path], loader=[tmp_path / "driver"])
    assert paths(opened)["libcublas.so.13"] == str(tmp_path / "nvidia" / "cu13" / "lib" / "libcublas.so.13")
    assert "libcudnn.so.9" in paths(opened)


def _versioned(path: Path, names: set[str], *, versioned: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source, script = path.with_suffix(".c"), path.with_suffix(".map")
    source.write_text("".join(f"void {name}(void){{}}\n" for name in sorted(names)) or "int nothing;")
    script.write_text(f"{path.name} {{ global: *; }};")
    options = [f"-Wl,--version-script={script}"] if versioned else []
    command = ["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{path.name}", *options, "-o", path, source]
    subprocess.run(command, check=True)
