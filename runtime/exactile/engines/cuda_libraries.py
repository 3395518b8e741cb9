"""Find the CUDA libraries that ONNX Runtime's provider needs, and open them before it, in order.

Each is searched for

    1. in this process: the loader reuses an open library of the same name, whoever opened it;
    2. in ``nvidia/*/lib`` and ``torch/lib`` of Python's path, those beside onnxruntime first, and in conda's;
    3. where the system's loader looks: LD_LIBRARY_PATH, ldconfig;
    4. in the folder of a CUDA toolkit: CUDA_PATH, CUDA_HOME, CUDNN_PATH, /usr/local/cuda*.

Some have the same name for several CUDA versions (libcudnn.so.9, libcurand.so.10): one for another version than the
provider's is skipped, and refused if it is already open. An open library is found by its name from then on, so the
provider and cuDNN's own parts need no search path.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from exactile.cuda.status import DRIVER_LIBRARY
from exactile.engines.shared_library import open_file, open_files, read_dynamic
from exactile.errors import DeviceError

CUDNN, CUDNN_GRAPH = "libcudnn.so.9", "libcudnn_graph.so.9"
_OF_CUDA = re.compile(r"lib(?:cu|nv)\w+\.so\.\d+")
_WITH_MAJOR = re.compile(r"lib(?:cudart|cublas|cublasLt|nvrtc|nvJitLink)\.so\.(\d+)")
_IN_SEARCH_PATH = re.compile(r"/cu(\d+)/lib\b")
_FOLDER = re.compile(r"cu(?:da-)?(\d+)(?:\.\d+)*")
_DISTRIBUTION = re.compile(r"_cu(\d+)-")
TOOLKITS = Path("/usr/local")


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaLibrary:
    """A library that is open: ``name`` as others ask for it, its file, and where that was found."""

    name: str
    path: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaNeeds:
    """The libraries ``names`` must be open before the provider, in this order; ``wanted`` ones may be missing."""

    names: tuple[str, ...]
    wanted: frozenset[str]
    major: int | None
    driver: bool


class _NotFoundError(Exception):
    """The message lists the files that were skipped, and why."""


_opened: dict[Path, tuple[CudaLibrary, ...]] = {}
_opening = threading.Lock()


def open_cuda_libraries(provider: Path, cuda_version: str) -> tuple[CudaLibrary, ...]:
    """Open the libraries of CUDA ``cuda_version`` (such as 13.0; "" if unknown) that ``provider`` needs.

    Raises DeviceError that names what is missing, or belongs to another CUDA version.
    """
    with _opening:
        if provider not in _opened:
            _opened[provider] = _open_all(needs_of(provider, cuda_version), provider)
        return _opened[provider]


def needs_of(provider: Path, cuda_version: str) -> CudaNeeds:
    """Return the libraries that the file names, and those that it opens while it runs: cuDNN, and the compiler that
    cuDNN uses.
    """
    try:
        named = read_dynamic(provider).needed
    except OSError as error:
        raise DeviceError(str(error)) from error
    names = [name for name in named if _OF_CUDA.fullmatch(name) and name != DRIVER_LIBRARY]
    majors = [int(match[1]) for name in names if (match := _WITH_MAJOR.fullmatch(name))]
    told = cuda_version.partition(".")[0]
    major = majors[0] if majors else int(told) if told.isdigit() else None
    compiler = f"libnvrtc.so.{major}"
    wanted = frozenset({compiler} - set(names)) if major is not None else frozenset[str]()
    late = [*wanted, *(name for name in (CUDNN,) if name not in names)]
    first = sorted((name for name in names if name != CUDNN), key=lambda name: not name.startswith("libcudart"))
    return CudaNeeds(
        names=(*first, *late, *(name for name in names if name == CUDNN)),
        wanted=wanted,
        major=major,
        driver=DRIVER_LIBRARY in named,
    )


def of_other_versions(major: int) -> tuple[str, ...]:
    """Return files of another CUDA's libraries that this process has open, as a framework for that CUDA opens them."""
    found = ((path, _WITH_MAJOR.match(path.rsplit("/", 1)[-1])) for path in open_files())
    return tuple(path for path, match in found if match and int(match[1]) != major)


def _open_all(needs: CudaNeeds, provider: Path) -> tuple[CudaLibrary, ...]:
    if needs.driver and not open_file(DRIVER_LIBRARY):
        try:
            ctypes.CDLL(DRIVER_LIBRARY)
        except OSError as error:
            raise DeviceError(
                f"{error}: there is no NVIDIA driver on this machine, or none in this container"
            ) from error
    opened, missing = [], []
    for name in needs.names:
        try:
            opened.append(_open(name, needs.major, provider))
        except _NotFoundError as error:
            if name not in needs.wanted:
                missing.append(f"{name}{error}")
    if missing:
        raise DeviceError(
            f"not found: {', '.join(missing)}; looked for in nvidia/*/lib of Python's path, where the system's loader "
            "looks (LD_LIBRARY_PATH, ldconfig), and in CUDA_PATH, CUDA_HOME, CUDNN_PATH and /usr/local/cuda*"
        )
    return tuple(opened)


def _open(name: str, major: int | None, provider: Path) -> CudaLibrary:
    """Raise _NotFoundError; DeviceError for an open cuDNN that is for another CUDA."""
    if path := open_file(name):
        library = CudaLibrary(name=name, path=path, source="this process has it open already")
    else:
        library = _find_and_open(name, major, provider)
    if name == CUDNN:
        try:
            _open_cudnn_parts(Path(library.path).parent)
        except OSError as error:
            raise _NotFoundError(f" (passed over: {error})") from error
        _check_cudnn(library, major)
    return library


def _find_and_open(name: str, major: int | None, provider: Path) -> CudaLibrary:
    passed: list[str] = []
    files = list(_files(name, _python_folders(provider)))
    if found := _first(name, files, major, passed):
        return found
    try:
        ctypes.CDLL(name)
    except OSError as error:
        if not str(error).startswith(f"{name}: cannot open"):
            passed.append(str(error))
    else:
        return CudaLibrary(name=name, path=open_file(name), source="the system's loader")
    if found := _first(name, list(_files(name, _toolkit_folders(major))), major, passed):
        return found
    raise _NotFoundError(f" (passed over: {'; '.join(passed)})" if passed else "")


def _first(name: str, files: list[tuple[Path, str]], major: int | None, passed: list[str]) -> CudaLibrary | None:
    """Return the first file that is known to be for CUDA ``major``, else the first of unknown version."""
    known = [(path, source, made_for(path)) for path, source in files]
    known.sort(key=lambda file: file[2] is None)
    for path, source, version in known:
        if version is not None and major is not None and version != major:
            passed.append(f"{path} is for CUDA {version}")
            continue
        try:
            if name == CUDNN:
                _open_cudnn_parts(path.parent)
            ctypes.CDLL(str(path))
        except OSError as error:
            passed.append(str(error))
        else:
            return CudaLibrary(name=name, path=str(path), source=source)
    return None


def made_for(path: Path) -> int | None:
    """Return the CUDA major version that a library is for, from its file and folder; None if they do not tell."""
    graph = path.with_name(CUDNN_GRAPH)
    try:
        dynamic = read_dynamic(graph if path.name == CUDNN and graph.exists() else path)
    except OSError:
        return None
    told = {int(match[1]) for name in (path.name, *dynamic.needed) if (match := _WITH_MAJOR.fullmatch(name))}
    told = told or {int(match[1]) for folder in _package_folders(path) if (match := _FOLDER.fullmatch(folder))}
    told = told or {int(major) for major in _IN_SEARCH_PATH.findall(dynamic.search_path)}
    told = told or _distributions(path)
    return told.pop() if len(told) == 1 else None


def _package_folders(path: Path) -> Iterator[str]:
    """Yield the names of the folders that a package or a toolkit installs a library into: cu13 or cuda-13.0, innermost
    first.
    """
    for folder in path.parents[:5]:
        yield folder.name
        if folder.name in {"nvidia", "site-packages"}:
            return


def _distributions(path: Path) -> set[int]:
    """Return versions in the names of the packages that install a library, such as nvidia-cudnn-cu12."""
    if len(path.parents) < 4 or path.parents[2].name != "nvidia":
        return set()
    stem = path.name.removeprefix("lib").partition(".")[0]
    packages = path.parents[3].glob(f"nvidia_{stem}_cu*.dist-info")
    return {int(match[1]) for package in packages if (match := _DISTRIBUTION.search(package.name))}


def _open_cudnn_parts(folder: Path) -> None:
    """Open the first part of cuDNN: if it cannot be opened, cuDNN would end the process. Raises OSError instead.

    Open all parts if LD_LIBRARY_PATH would mix them with those of another cuDNN.
    """
    first = folder / CUDNN_GRAPH
    if first.exists():
        ctypes.CDLL(str(first))
    searched = {Path(entry).resolve() for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":") if entry}
    if any(other != folder.resolve() and other.joinpath(CUDNN_GRAPH).exists() for other in searched):
        for part in sorted(folder.glob("libcudnn_*.so.9")):
            with contextlib.suppress(OSError):  # of one that is never needed, or that cuDNN then refuses
                ctypes.CDLL(str(part))


def _check_cudnn(library: CudaLibrary, major: int | None) -> None:
    """Raise DeviceError unless the open cuDNN was built for CUDA ``major``."""
    part = open_file(CUDNN_GRAPH)
    if part and Path(part).resolve().parent != Path(library.path).resolve().parent:
        raise DeviceError(
            f"two versions of cuDNN are mixed: {library.path} ({library.source}), and {part}, which this process has "
            "open already; leave one of them, and see LD_LIBRARY_PATH"
        )
    if major is None or not part:
        return
    ask = getattr(ctypes.CDLL(library.path), "cudnnGetCudartVersion", None)
    if ask is None:
        return
    ask.restype = ctypes.c_size_t
    version = int(ask()) // 1000
    if version != major:
        raise DeviceError(
            f"{library.path} ({library.source}) is built for CUDA {version}, and ONNX Runtime's provider for CUDA "
            f"{major}: install nvidia-cudnn-cu{major} without nvidia-cudnn-cu{version}, which overwrites its files; in "
            f"a process that imports a framework for CUDA {version}, use one for CUDA {major}, or run exactile in a "
            f"separate process"
        )


def _files(name: str, folders: Iterable[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    for folder, source in folders:
        path = folder / name
        if path.is_file():
            yield path, source


def _python_folders(provider: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders of onnxruntime's site, then of all of Python's path, each once."""
    sites = [provider.parents[2], *(Path(entry) for entry in sys.path if entry)]
    for site in dict.fromkeys(sites):
        for folder in sorted(site.glob("nvidia/*/lib"), reverse=True):
            yield folder, "Python's nvidia packages"
        yield site / "torch" / "lib", "Python's torch package"
    if conda := os.environ.get("CONDA_PREFIX"):
        yield Path(conda) / "lib", "CONDA_PREFIX"


def _toolkit_folders(major: int | None) -> Iterator[tuple[Path, str]]:
    told = {name: os.environ.get(name) for name in ("CUDNN_PATH", "CUDA_PATH", "CUDA_HOME")}
    roots = [(Path(root), name) for name, root in told.items() if root]
    pattern = "cuda*" if major is None else f"cuda-{major}*"
    installed = [*sorted(TOOLKITS.glob(pattern), reverse=True), TOOLKITS / "cuda"]
    for root, source in [*roots, *((root, str(root)) for root in installed)]:
        for folder in (root / "lib64", root / "lib", *sorted(root.glob("targets/*/lib"))):
            yield folder, source
