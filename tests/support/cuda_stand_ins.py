"""Small libraries with the names, symbols and dependencies of CUDA's and of onnxruntime-gpu's, built by gcc.

What they reproduce was read off onnxruntime-gpu 1.31.1, cuDNN 9.28 and CUDA 13's packages: the provider does not name
the library that it takes ``Provider_GetHost`` from, and reads its host while it is opened; cuDNN's file does not tell
which CUDA it is for, but can be asked, and opens a part of its own for it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

PROVIDER, BETWEEN = "libonnxruntime_providers_cuda.so", "libonnxruntime_providers_shared.so"
NEEDED = ("libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcuda.so.1")
SYMBOLS = {
    "libcublasLt.so.13": "cublasLtCreate",
    "libcublas.so.13": "cublasCreate_v2",
    "libcurand.so.10": "curandCreateGenerator",
    "libcudart.so.13": "cudaMalloc",
    "libcuda.so.1": "cuInit",
}

BETWEEN_SOURCE = """
static void *host;
void *Provider_GetHost(void) { return host; }
void Provider_SetHost(void *given) { host = given; }
"""

PROVIDER_SOURCE = """
extern void *Provider_GetHost(void);
{declared}
int first;
__attribute__((constructor)) static void opened(void) {{ first = **(int **)Provider_GetHost(); {called} }}
void *GetProvider(void) {{ return &first; }}
"""

CUDNN_SOURCE = """
#include <dlfcn.h>
#include <stdlib.h>
unsigned long cudnnGetCudartVersion(void) {
    void *part = dlopen("libcudnn_graph.so.9", RTLD_LAZY);
    if (!part) abort();
    return ((unsigned long (*)(void))dlsym(part, "graphCudartVersion"))();
}
"""

MODULE = """
import ctypes, pathlib
__version__, cuda_version = "1.31.1", "13.0"
_capi = pathlib.Path(__file__).parent / "capi"
_host = ctypes.pointer(ctypes.c_int(7))
if {sets_host}:
    ctypes.CDLL(str(_capi / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL).Provider_SetHost(
        ctypes.cast(ctypes.pointer(_host), ctypes.c_void_p))
def get_available_providers():
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
"""


def library(path: Path, source: str, *, needed: Sequence[Path] = (), run_path: str = "") -> Path:
    """``source`` (C) as the library ``path``; those ``needed`` are named in it, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.with_suffix(".c")
    text.write_text(source)
    options = [f"-Wl,-rpath,{run_path}"] if run_path else []
    if path.name not in (PROVIDER, BETWEEN):
        options.append(f"-Wl,-soname,{path.name}")
    command = ["gcc", "-shared", "-fPIC", "-w", "-Wl,--no-as-needed", *options, "-o", path, text, *needed, "-ldl"]
    subprocess.run(command, check=True)
    text.unlink()
    return path


def empty(path: Path) -> Path:
    """A library with a function of the one that it is named after."""
    return library(path, f"void {SYMBOLS.get(path.name, 'nothing')}(void) {{}}")


def cuda_libraries(folder: Path) -> list[Path]:
    """Those of CUDA 13 that the provider names, without the driver's."""
    return [empty(folder / name) for name in NEEDED if name != "libcuda.so.1"]


def cudnn(folder: Path, cuda: int, *, tells: bool = True) -> Path:
    """cuDNN 9 for CUDA ``cuda``; ``tells`` whether its parts look into the folder of CUDA's package."""
    run_path = f"$ORIGIN:$ORIGIN/../../cu{cuda}/lib" if tells else "$ORIGIN"
    graph = f"unsigned long graphCudartVersion(void) {{ return {cuda}050; }}"
    library(folder / "libcudnn_graph.so.9", graph, run_path=run_path)
    return library(folder / "libcudnn.so.9", CUDNN_SOURCE, run_path="$ORIGIN")


def driver(folder: Path) -> Path:
    return empty(folder / "libcuda.so.1")


def onnxruntime_gpu(site: Path, needed: Sequence[Path], *, sets_host: bool = True) -> Path:
    """A package ``onnxruntime`` in ``site`` whose provider needs these libraries. The provider's path."""
    capi = site / "onnxruntime" / "capi"
    calls = [SYMBOLS[path.name] for path in needed]
    source = PROVIDER_SOURCE.format(
        declared="".join(f"extern void {name}(void);\n" for name in calls),
        called="".join(f"{name}();" for name in calls),
    )
    library(capi / BETWEEN, BETWEEN_SOURCE)
    (site / "onnxruntime" / "__init__.py").write_text(MODULE.format(sets_host=sets_host))
    return library(capi / PROVIDER, source, needed=needed)
