"""Check ONNX Runtime: the providers that it was built with, and those that a session really gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exactile.doctor.finding import Finding, Status, Telling, of_error, one_line, sentence
from exactile.doctor.small_network import open_small
from exactile.engines.cuda_libraries import CudaLibrary
from exactile.engines.cuda_provider import PROVIDER, cuda_libraries, load_cuda_library, quiet, reason_of
from exactile.engines.onnx_runtime import add_weights, load_library, session_options
from exactile.errors import DeviceError, ExactileError

GROUP = "engines"
CHECK = "onnxruntime-cuda"
"""The status is ok if a session runs on the CUDA provider."""

LIBRARIES = "cuda-libraries"


def check_providers(telling: Telling, arguments: Mapping[str, Any]) -> None:
    """Check the providers. ``ordinal``: the GPU to open a session on; None if there is none."""
    telling.doing("importing onnxruntime")
    try:
        built_in = [str(name) for name in load_library().get_available_providers()]
    except ExactileError as error:
        telling.found(of_error(GROUP, CHECK, error))
        return
    ordinal = arguments["ordinal"]
    got: list[str] = []
    why = ""
    if PROVIDER in built_in and ordinal is not None:
        telling.doing("opening the CUDA libraries that ONNX Runtime needs")
        if opened := _libraries():
            telling.found(_where_from(opened))
        telling.doing("opening a session on ONNX Runtime's CUDA provider")
        got, why = _session_providers(ordinal)
    else:
        why = _no_cuda(built_in)
    telling.found(_finding(built_in, got, why, gpu=ordinal is not None))


def _no_cuda(built_in: list[str]) -> str:
    if PROVIDER in built_in:
        return "there is no GPU to try it on"
    try:
        load_cuda_library()
    except DeviceError as error:
        return one_line(str(error))
    return "it was built without CUDA"


def _session_providers(ordinal: int) -> tuple[list[str], str]:
    """Return the providers that a session on the GPU gets with fallback, and why the CUDA provider is
    not among them.
    """
    try:
        ort = load_cuda_library()
    except DeviceError as error:
        return ["CPUExecutionProvider"], one_line(str(error))
    model = open_small("labels").model
    options = session_options(ort, (64, 64), 1)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")  # its own choice is the question
    add_weights(ort, options, model.weights, model.graph)
    with quiet(ort):
        try:
            asked = [(PROVIDER, {"device_id": str(ordinal)})]
            session = ort.InferenceSession(model.graph, options, providers=asked, enable_fallback=0)
        except Exception as error:  # noqa: BLE001  # its exceptions share no base class
            return [], one_line(reason_of(str(error)), 300)
    got = [str(name) for name in session.get_providers()]
    return got, "" if PROVIDER in got[:1] else "it does not say why"


def _libraries() -> tuple[CudaLibrary, ...]:
    """Return the libraries that the provider uses; none if they cannot be opened, which the other finding reports."""
    try:
        return cuda_libraries(load_cuda_library())
    except DeviceError:
        return ()


def _where_from(libraries: tuple[CudaLibrary, ...]) -> Finding:
    """Return the file of each library: the first thing to check if several CUDA versions are installed."""
    folders: dict[tuple[str, str], list[str]] = {}
    for library in libraries:
        folder, _, _ = library.path.rpartition("/")
        folders.setdefault((folder, library.source), []).append(library.name)
    said = (f"{', '.join(names)} from {folder} ({source})" for (folder, source), names in folders.items())
    return Finding(
        group=GROUP,
        check=LIBRARIES,
        status="ok",
        says=sentence("; ".join(said)),
        facts={each.name: {"path": each.path, "source": each.source} for each in libraries},
    )


def _finding(built_in: list[str], got: list[str], why: str, *, gpu: bool) -> Finding:
    facts = {"built_in": built_in, "session": got, "reason": why}
    says = f"ONNX Runtime was built with {_listed(built_in)}"
    if got or (gpu and PROVIDER in built_in):
        says += f"; a session on the GPU really gets {_listed(got)}"
    status: Status = "ok" if not why else ("warning" if gpu else "not applicable")
    if why:
        says += f": {why}" if gpu else "; there is no GPU to use"
    return Finding(group=GROUP, check=CHECK, status=status, says=sentence(says), facts=facts)


def _listed(providers: list[str]) -> str:
    return ", ".join(name.removesuffix("ExecutionProvider") for name in providers) or "no provider"
