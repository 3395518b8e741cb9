"""CUDA's libraries as the real provider of onnxruntime-gpu needs them to start on a machine without a GPU.

``cudart.cpp`` is the runtime. Of the others every function that the provider names is there and returns 0, so that
convolutions, pooling and matrix products compute nothing. cuDNN is there by the names that the provider looks up in it.
TensorRT is there to list kernels alone: ONNX Runtime lists those of all its providers, and ends where one is missing.
"""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.cuda_stand_ins import PROVIDER

WHEEL = "EXACTILE_TEST_ONNXRUNTIME_GPU"
"""The folder into which a wheel of onnxruntime-gpu was unpacked."""

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
RUNTIME, CUDNN, TENSORRT = "libcudart.so.13", "libcudnn.so.9", ("libnvinfer.so.10", "libnvonnxparser.so.10")
CUDNN_SOURCE = """
extern "C" unsigned long cudnnGetVersion(void) { return 91400; }
extern "C" unsigned long cudnnGetCudartVersion(void) { return 13000; }
"""
TENSORRT_SOURCE = """
static long nothing(void) { return 0; }
static struct { void *table, *inside[33]; } object;
static void *methods[400];
static void *made(void) {
    for (int i = 0; i < 400; i++) methods[i] = (void *)nothing;
    object.table = methods;
    for (int i = 0; i < 33; i++) object.inside[i] = &object;
    return &object;
}
int getInferLibVersion(void) { return 101300; }
"""
TENSORRT_MADE = (
    "createInferRuntime_INTERNAL createInferBuilder_INTERNAL createInferRefitter_INTERNAL "
    "createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getPluginRegistry"
).split()


def wheel() -> Path | None:
    """The unpacked wheel with the provider, where there is one."""
    folder = Path(os.environ.get(WHEEL, ""))
    return folder if (folder / "onnxruntime" / "capi" / PROVIDER).exists() else None


def build(site: Path, folder: Path) -> None:
    """Make the libraries that the provider in ``site`` needs in ``folder``. Needs g++ and readelf."""
    provider = site / "onnxruntime" / "capi" / PROVIDER
    symbols = undefined_symbols(provider)
    plain = {name for name in symbols.get("", ()) if re.match(r"cu[A-Z]|curand", name)}
    folder.mkdir(parents=True, exist_ok=True)
    for name in _needed(provider):
        source = (HERE / "cudart.cpp").read_text() if name == RUNTIME else ""
        _library(folder / name, source, symbols.get(name, plain), versioned=name in symbols)
    strings = set(re.findall(rb"(?<![A-Za-z])cudnn[A-Z]\w+(?=\x00)", provider.read_bytes()))
    cudnn = {name.decode() for name in strings} | {"cudnnCreate", "cudnnDestroy"}
    _library(folder / CUDNN, 'extern "C" unsigned long cudnnGetVersion(void) { return 91400; }', cudnn, versioned=True)
    source = TENSORRT_SOURCE + "".join(f"void *{name}(void) {{ return made(); }}\n" for name in TENSORRT_MADE)
    for name in TENSORRT:
        _library(folder / name, f'extern "C" {{ {source} }}', set(), versioned=False)


def run(module: str, *arguments: str | Path, site: Path, libraries: Path, journal: Path | None = None) -> str:
    """``python -m MODULE`` with the real ``onnxruntime-gpu`` on the stand-ins; what it printed."""
    path = os.pathsep.join(map(str, (site, ROOT / "runtime", ROOT / "converters", ROOT)))
    env = {**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": str(libraries)}
    if journal is not None:
        env["CUDA_JOURNAL"] = str(journal)
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def undefined_symbols(library: Path) -> dict[str, set[str]]:
    """What it takes from others, by the library that the symbol's version names; "" for those without one."""
    said = subprocess.run(["readelf", "--dyn-syms", "-W", library], capture_output=True, text=True, check=True)
    found = collections.defaultdict(set)
    for fields in map(str.split, said.stdout.splitlines()):
        if len(fields) >= 8 and fields[6] == "UND":
            name, _, version = fields[7].partition("@")
            found[version.lstrip("@")].add(name)
    return dict(found)


def _needed(provider: Path) -> list[str]:
    said = subprocess.run(["readelf", "-d", "-W", provider], capture_output=True, text=True, check=True)
    return re.findall(r"NEEDED.*\[(lib(?:cu|nv)\S+)\]", said.stdout)


def _library(path: Path, source: str, names: set[str], *, versioned: bool) -> None:
    """``source`` and, for each of ``names`` that is not in it, a function that returns 0, or gives out a handle."""
    missing = sorted(name for name in names if not re.search(rf"\b{name}\(", source))
    text, script = path.with_suffix(".cpp"), path.with_suffix(".map")
    text.write_text(source + '\nextern "C" {\n' + "".join(map(_nothing, missing)) + "}\n")
    script.write_text(f"{path.name} {{ global: *; }};")
    version = [f"-Wl,--version-script={script}"] if versioned else []
    options = ["-std=c++17", "-shared", "-fPIC", "-w", "-O1", f"-Wl,-soname,{path.name}", *version]
    subprocess.run(["g++", *options, "-o", path, text], check=True)


def _nothing(name: str) -> str:
    if re.search(r"Create", name) and not name.startswith("cuda"):
        return f"int {name}(void **made) {{ static int object[64]; *made = object; return 0; }}\n"
    if re.search(r"ErrorString|GetStatus", name):
        return f'const char *{name}(int) {{ return "the stand-in"; }}\n'
    return f"long {name}(...) {{ return 0; }}\n"
