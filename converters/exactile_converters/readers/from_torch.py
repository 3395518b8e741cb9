"""Read PyTorch networks (a module, a TorchScript file, an exported program): export to ONNX, and compare with it."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exactile.errors import ModelError, OptionError
from exactile_converters.exporters.quiet import first_lines, quiet
from exactile_converters.networks.agreement import Exported, compare_with_framework
from exactile_converters.prepare.from_onnx import prepare_network

if TYPE_CHECKING:
    from torch import nn

EXAMPLE_SIZE = (256, 256)
"""Divisible by all usual strides, and larger than most receptive fields at the coarsest level."""

NEEDS_CODE = "; a state dict or a pickled module needs its code: --torch package.module:factory --weights FILE"

TRIED_SIZES = ((256, 256), (192, 320))


def from_module(
    module: nn.Module,
    *,
    channels: int | None = None,
    size: tuple[int, int] = EXAMPLE_SIZE,
    name: str | None = None,
    output_name: str | None = None,
) -> Exported:
    """Export ``module``, which maps (N, C, H, W) float32 to the same or another number of channels, in eval mode.

    ``channels`` defaults to those of the first convolution; ``size`` is that of the traced example. Raises ModelError
    when no exporter takes the module or ONNX Runtime's results are not the module's.
    """
    from torch import nn

    _require_torch()
    name = name or type(module).__name__
    if not isinstance(module, nn.Module):
        raise ModelError(f"{name} is a {type(module).__name__}, not a torch.nn.Module")
    channels = channels or _input_channels(module)
    if channels is None:
        raise OptionError(f"{name}: the number of channels of the image is unknown; give --input-channels")
    module = module.eval()
    proto, sizes = _export(module, channels, size, name)
    return _checked(proto, module, channels, sizes, name, output_name)


def from_factory(
    reference: str,
    weights: Path | None,
    *,
    channels: int | None,
    size: tuple[int, int] = EXAMPLE_SIZE,
    output_name: str | None = None,
) -> Exported:
    """Export the module that ``package.module:factory`` returns when called, with ``weights`` (a state dict) loaded.

    Raises OptionError when the factory is not available, ModelError when the weights do not fit.
    """
    _require_torch()
    import torch

    module = _called(reference)
    if weights is not None:
        state = _loaded(lambda: torch.load(weights, map_location="cpu", weights_only=True), weights)
        state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else state
        try:
            module.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ModelError(f"{weights}: the weights do not fit {reference}: {first_lines(error)}") from error
    return from_module(module, channels=channels, size=size, name=reference.rpartition(":")[2], output_name=output_name)


def from_file(
    path: Path, *, channels: int | None, size: tuple[int, int] = EXAMPLE_SIZE, output_name: str | None = None
) -> Exported:
    """Load a TorchScript file (.pt, .pth) or exported program (.pt2). Pickled modules are not opened: they run code."""
    _require_torch()
    import torch

    if path.suffix == ".pt2":
        program = _loaded(lambda: torch.export.load(path), path)
        return _from_program(program, path.name, output_name)
    load: Callable[..., Any] = torch.jit.load
    with quiet():  # TorchScript is deprecated, but its files are still in use
        module = _loaded(lambda: load(path, map_location="cpu"), path, hint=NEEDS_CODE)
    return from_module(module, channels=channels, size=size, name=path.name, output_name=output_name)


def _from_program(program: Any, name: str, output_name: str | None) -> Exported:
    import torch

    example = program.example_inputs
    if not example or not example[0] or len(example[0][0].shape) != 4:
        raise ModelError(f"{name}: the program has no example image of 4 dimensions (N, C, H, W)")
    _, channels, height, width = example[0][0].shape
    module = program.module()
    try:
        with quiet():
            exported = torch.onnx.export(program, dynamo=True, verbose=False)
        assert exported is not None
        proto = exported.model_proto
    except Exception:  # noqa: BLE001  # its exporter refuses some programs that were saved; tracing takes them
        proto, _ = _export(_frozen(module), channels, (height, width), name)
    return _checked(proto, module, channels, ((height, width),), name, output_name)


def _frozen(program: Any) -> nn.Module:
    """Return the module of an exported program, which has no training or evaluation mode."""
    from torch import nn

    class Frozen(nn.Module):  # type: ignore[misc]
        def forward(self, image: Any) -> Any:
            return program(image)

    return Frozen()


def _export(module: nn.Module, channels: int, size: tuple[int, int], name: str) -> tuple[onnx.ModelProto, Any]:
    """Export with the exporter that takes it, with free height and width if possible; also return sizes to compare."""
    from exactile_converters.torch_export import export_onnx

    failures = []
    tried = TRIED_SIZES if size == EXAMPLE_SIZE else (size, size[::-1])
    for exporter, dynamic in (("torchscript", True), ("dynamo", True), ("dynamo", False)):
        buffer = io.BytesIO()
        try:
            export_onnx(module, buffer, channels, size, dynamic=dynamic, exporter=exporter)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001  # whatever goes wrong inside an exporter
            failures.append(f"{exporter}: {first_lines(error)}")
            continue
        return onnx.load_from_string(buffer.getvalue()), (tried if dynamic else (size,))
    raise ModelError(f"{name}: PyTorch cannot export it to ONNX:\n" + "\n".join(failures))


def _checked(
    proto: onnx.ModelProto,
    module: Any,
    channels: int,
    sizes: tuple[tuple[int, int], ...],
    name: str,
    output_name: str | None,
) -> Exported:
    import torch

    def framework(image: NDArray[np.float32]) -> NDArray[Any]:
        with torch.inference_mode():
            found = module(torch.from_numpy(image))
        while isinstance(found, (tuple, list)):
            found = found[0]
        if isinstance(found, dict):
            found = next(iter(found.values()))
        return np.asarray(found.numpy())

    agreement = compare_with_framework(
        proto, framework, channels=channels, sizes=sizes, name=name, output_name=output_name
    )
    return Exported(network=prepare_network(proto, name=name, output_name=output_name), agreement=agreement)


def _called(reference: str) -> Any:
    package, _, factory = reference.partition(":")
    if not package or not factory:
        raise OptionError(f"--torch takes package.module:factory, e.g. mypackage.models:build_unet; got {reference!r}")
    _require_torch()
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)  # as python -m does: the user's module is usually here
    try:
        made: Any = importlib.import_module(package)
        for part in factory.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"--torch {reference}: {error}") from error
    finally:
        if added:
            sys.path.remove(here)
    try:
        return made()
    except Exception as error:
        raise ModelError(f"--torch {reference}: calling it failed: {first_lines(error)}") from error


def _input_channels(module: Any) -> int | None:
    from torch import nn

    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            return int(part.in_channels)
        found = getattr(part, "in_channels", None)
        if isinstance(found, int):
            return found
    first = next((weight for weight in module.parameters() if weight.dim() == 4), None)  # a script module
    return int(first.shape[1]) if first is not None else None


def _loaded(load: Callable[[], Any], path: Path, hint: str = "") -> Any:
    if not path.is_file():
        raise ModelError(f"no file at {path}")
    try:
        return load()
    except Exception as error:
        raise ModelError(f"{path} cannot be loaded by PyTorch: {first_lines(error)}{hint}") from error


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ModelError("PyTorch models need PyTorch: pip install 'exactile[convert,torch]'") from error
