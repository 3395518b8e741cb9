"""ONNX Runtime's CUDA provider: there and able to run, or the reason why not and what to install.

ONNX Runtime itself runs a graph on the CPU where the provider cannot be loaded, and prints why.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from exactile.engines.onnx_runtime import fail, is_out_of_memory, one_line
from exactile.errors import DeviceError, DeviceMemoryError

PROVIDER = "CUDAExecutionProvider"
_INSTALL = "pip install 'exactile[gpu]'"
_INSTALL_CUDA = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
_OUT_OF_MEMORY = ("out of memory", "OUT_OF_MEMORY", "ALLOC_FAILED")
_OF_THE_DEVICE = ("CUDA failure", "CUDA error", "CUDNN", "CUBLAS", "cudaError", "provider option")
_NOT_ON_GPU = "fallback to CPU EP has been explicitly disabled"
_SILENT, _LIBRARY_DEFAULT = 4, 2


def load_cuda_library() -> Any:
    """ONNX Runtime and its CUDA provider, with the CUDA libraries that this needs where pip installed them.

    Raises DeviceError where one of them is missing, or ONNX Runtime was built without CUDA.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(f"onnxruntime cannot be imported ({error}); install it with: {_INSTALL}") from error
    if PROVIDER not in onnxruntime.get_available_providers():
        raise DeviceError(f"this onnxruntime, {onnxruntime.__version__}, runs on the CPU alone; {_replacing_it()}")
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; so far that is no error
            onnxruntime.preload_dlls()
    if reason := why_not(onnxruntime):
        raise DeviceError(f"ONNX Runtime's CUDA provider cannot be loaded: {reason}")
    return onnxruntime


@contextlib.contextmanager
def quiet(ort: Any) -> Iterator[None]:
    """Keep ONNX Runtime's process-wide logger from printing; what matters comes back as an error."""
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
        raise DeviceError(f"{PROVIDER} was asked for, but ONNX Runtime took {', '.join(providers)}: {reason}")
    taken = session.get_provider_options().get(PROVIDER, {})
    for name in ("device_id", "user_compute_stream"):
        if taken.get(name) != options[name]:
            raise DeviceError(
                f"ONNX Runtime {ort.__version__} took {name} {taken.get(name)} where {options[name]} was asked for; "
                "install another version of onnxruntime-gpu"
            )


def why_not(ort: Any) -> str:
    """Why ONNX Runtime cannot load its CUDA provider, and what to do; "" where it can, or cannot be asked."""
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not library.exists():
        return ""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        reason = one_line(error)
    else:
        return ""
    built = f"onnxruntime {ort.__version__} needs CUDA {getattr(ort, 'cuda_version', '') or '(unknown)'} and cuDNN"
    if "libcuda.so" in reason:
        return f"{reason}: there is no NVIDIA driver on this machine ({built})"
    return f"{reason}; {built}: {_INSTALL_CUDA}"


def fail_on_device(ort: Any, error: Exception, doing: str) -> NoReturn:
    """Raise DeviceMemoryError, DeviceError or EngineError, as ONNX Runtime's message says."""
    text = str(error)
    if is_out_of_memory(error) or any(sign in text for sign in _OUT_OF_MEMORY):
        raise DeviceMemoryError(
            f"the GPU's memory ran out while {doing}; free some, or use smaller tiles or batches: {one_line(error)}"
        ) from error
    if _NOT_ON_GPU in text:
        reason = why_not(ort) or (
            "the graph has operators that the CUDA provider does not run, or that provider did not start; "
            "nothing is left to the CPU"
        )
        raise DeviceError(f"ONNX Runtime cannot run all of the graph on the GPU: {reason}") from error
    if any(sign in text for sign in _OF_THE_DEVICE):
        raise DeviceError(f"ONNX Runtime's CUDA provider failed while {doing}: {_from_the_sign(text)}") from error
    fail(error, doing)


def _from_the_sign(text: str) -> str:
    """Without the source positions that ONNX Runtime begins with, which are longer than what matters."""
    return one_line(text[min(text.find(sign) for sign in _OF_THE_DEVICE if sign in text) :])


def _replacing_it() -> str:
    """What to do about a build without CUDA."""
    if _installed("onnxruntime-gpu"):
        return (
            "onnxruntime and onnxruntime-gpu are both installed, and one overwrites the other: "
            f"pip uninstall --yes onnxruntime onnxruntime-gpu, then {_INSTALL}"
        )
    return f"for a GPU: pip uninstall --yes onnxruntime, then {_INSTALL}"


def _installed(distribution: str) -> bool:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(distribution))
    return False
