"""Load ONNX Runtime's CUDA provider, or say why it cannot run and what to install.

ONNX Runtime itself falls back to the CPU if the provider cannot be loaded, and prints why.

The provider is a separate library that takes its host, ONNX Runtime, from ``libonnxruntime_providers_shared.so``.
Importing onnxruntime opens that library globally and sets the host there. Without it the provider cannot be opened
(``Provider_GetHost`` is undefined); opened before the host is set, it follows a null pointer and ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from exactile.cuda.status import DRIVER_LIBRARY
from exactile.engines.cuda_libraries import CudaLibrary, of_other_versions, open_cuda_libraries
from exactile.engines.onnx_runtime import fail, is_out_of_memory, one_line
from exactile.errors import DeviceError, DeviceMemoryError

PROVIDER = "CUDAExecutionProvider"
_INSTALL = "pip install 'exactile[gpu]'"
_INSTALL_CUDA = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
_OUT_OF_MEMORY = ("out of memory", "OUT_OF_MEMORY", "ALLOC_FAILED")
_OF_THE_DEVICE = ("CUDA failure", "CUDA error", "CUDNN", "cuDNN is", "CUBLAS", "cudaError", "provider option")
_REMEDIES = {
    "driver version is insufficient": "update the NVIDIA driver; CUDA 13 needs version 580 or newer, CUDA 12 525",
    "no kernel image is available": "this build of ONNX Runtime has no code for this GPU; see its release notes",
}
_WHERE = re.compile(r" ?; ?(?:GPU|hostname|file|line|expr)=[^;]*")
"""Where in ONNX Runtime, and on which machine, something failed."""

NOT_ON_GPU = "fallback to CPU EP has been explicitly disabled"
"""The message of ONNX Runtime if it would run a part of a graph on the CPU."""

_OLDEST = (1, 29)
"""In older versions, average pooling with asymmetric padding, as in strips, was wrong without an error."""

_SILENT, _LIBRARY_DEFAULT = 4, 2


def load_cuda_library() -> Any:
    """Return ONNX Runtime with its CUDA provider, and open the CUDA libraries that pip installed for it.

    Raises DeviceError if one of them is missing, or ONNX Runtime was built without CUDA.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(f"onnxruntime cannot be imported ({error}); install it with: {_INSTALL}") from error
    if PROVIDER not in onnxruntime.get_available_providers():
        raise DeviceError(f"this onnxruntime, {onnxruntime.__version__}, runs on the CPU alone; {_replacing_it()}")
    if _release(onnxruntime.__version__) < _OLDEST:
        raise DeviceError(
            f"onnxruntime-gpu {onnxruntime.__version__} computes average pooling wrong on a GPU where one side is "
            "padded more than the other, as in strips; "
            f"{'.'.join(map(str, _OLDEST))} is the oldest that does not: {_INSTALL}"
        )
    if sys.platform != "linux" and hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; so far that is no error
            onnxruntime.preload_dlls()
    if reason := why_not(onnxruntime):
        raise DeviceError(f"ONNX Runtime's CUDA provider cannot be loaded: {reason}")
    return onnxruntime


@contextlib.contextmanager
def quiet(ort: Any) -> Iterator[None]:
    """Silence ONNX Runtime's process-wide logger; relevant failures are raised as errors."""
    ort.set_default_logger_severity(_SILENT)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_LIBRARY_DEFAULT)  # it does not tell what it was


def check_provider(ort: Any, session: Any, options: dict[str, str]) -> None:
    """Raise DeviceError unless ``session`` runs on the CUDA provider with ``options``."""
    providers = session.get_providers()
    if not providers or providers[0] != PROVIDER:
        reason = why_not(ort) or "it does not say why"
        raise DeviceError(f"{PROVIDER} was requested, but ONNX Runtime took {', '.join(providers)}: {reason}")
    taken = session.get_provider_options().get(PROVIDER, {})
    for name in ("device_id", "user_compute_stream"):
        if taken.get(name) != options[name]:
            raise DeviceError(
                f"ONNX Runtime {ort.__version__} took {name} {taken.get(name)} where {options[name]} was requested; "
                "install another version of onnxruntime-gpu"
            )


def why_not(ort: Any) -> str:
    """Return why ONNX Runtime cannot load its CUDA provider, and the remedy; "" if it can, or if that is unknown."""
    library = _provider_library(ort)
    if not library.exists():
        return ""
    built = f"onnxruntime {ort.__version__} needs CUDA {getattr(ort, 'cuda_version', '') or '(unknown)'} and cuDNN 9"
    try:
        cuda_libraries(ort)
        if _has_host(library):
            ctypes.CDLL(str(library))
    except (DeviceError, OSError) as error:
        reason = one_line(error)
        return f"{reason} ({built})" if DRIVER_LIBRARY in reason else f"{reason}; {built}: {_INSTALL_CUDA}"
    return ""


def cuda_libraries(ort: Any) -> tuple[CudaLibrary, ...]:
    """Open and return the CUDA libraries that the provider uses; none if it has no library.

    Raises DeviceError that names what is missing.
    """
    library = _provider_library(ort)
    return open_cuda_libraries(library, getattr(ort, "cuda_version", "")) if library.exists() else ()


def _provider_library(ort: Any) -> Path:
    return Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"


def _has_host(library: Path) -> bool:
    """Return whether the provider finds ONNX Runtime when it is opened. Raises OSError if the shared
    part is missing.
    """
    between = ctypes.CDLL(str(library.with_name("libonnxruntime_providers_shared.so")), mode=ctypes.RTLD_GLOBAL)
    between.Provider_GetHost.restype = ctypes.c_void_p
    return between.Provider_GetHost() is not None


def fail_on_device(ort: Any, error: Exception, doing: str) -> NoReturn:
    """Raise DeviceMemoryError, DeviceError or EngineError, according to ONNX Runtime's message."""
    text = str(error)
    if is_out_of_memory(error) or any(sign in text for sign in _OUT_OF_MEMORY):
        raise DeviceMemoryError(
            f"the GPU's memory ran out while {doing}; free some, or use smaller tiles or batches: {one_line(error)}"
        ) from error
    if NOT_ON_GPU in text:
        reason = why_not(ort) or (
            "the graph has operators that the CUDA provider does not run, or the provider did not start; "
            "nothing is left to the CPU"
        )
        raise DeviceError(f"ONNX Runtime cannot run all of the graph on the GPU: {reason}") from error
    if any(sign in text for sign in _OF_THE_DEVICE):
        raise DeviceError(
            f"ONNX Runtime's CUDA provider failed while {doing}: {reason_of(text)}{_beside(ort)}"
        ) from error
    fail(error, doing)


def _beside(ort: Any) -> str:
    """Return the possible reason of a failure that the provider does not explain."""
    major = str(getattr(ort, "cuda_version", "")).partition(".")[0]
    others = of_other_versions(int(major)) if major.isdigit() else ()
    return f" (this process has libraries of another CUDA open as well: {', '.join(others)})" if others else ""


def reason_of(text: str) -> str:
    """Return ONNX Runtime's message without its leading source positions, with a remedy if one is known."""
    begin = min((text.find(sign) for sign in _OF_THE_DEVICE if sign in text), default=0)
    remedy = next((remedy for part, remedy in _REMEDIES.items() if part in text), "")
    said = _WHERE.sub("", one_line(text[begin:])).rstrip("; ")
    return said + (f": {remedy}" if remedy else "")


def _replacing_it() -> str:
    """Return the remedy for a build without CUDA."""
    this, other = _folder_of("onnxruntime"), _folder_of("onnxruntime-gpu")
    if this is not None and other is not None and this != other:
        return f"onnxruntime-gpu is in {other}, which Python looks into later than into {this}: put it first"
    if other is not None:
        return (
            "onnxruntime and onnxruntime-gpu are both installed, and one overwrites the other: "
            f"pip uninstall --yes onnxruntime onnxruntime-gpu, then {_INSTALL}"
        )
    return f"for a GPU: pip uninstall --yes onnxruntime, then {_INSTALL}"


def _folder_of(distribution: str) -> str | None:
    """Return the folder where it is installed; None if it is not."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return str(metadata.distribution(distribution).locate_file(""))
    return None


def _release(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
