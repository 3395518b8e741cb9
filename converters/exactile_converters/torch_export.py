"""Export a PyTorch module to an ONNX file with free height and width."""

from __future__ import annotations

import io
import os
from typing import Any, Literal

import torch
from torch import nn

from exactile_converters.exporters.quiet import quiet
from exactile_converters.exporters.torch_bins import bins_of_any_size

Exporter = Literal["torchscript", "dynamo"]

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
# The output's axes have their own names: in general they are not the input's.
AXES = {
    INPUT_NAME: {0: "batch", 2: "height", 3: "width"},
    OUTPUT_NAME: {0: "batch", 2: "output_height", 3: "output_width"},
}


def export_onnx(
    module: nn.Module,
    path_or_buffer: str | os.PathLike[str] | io.BytesIO,
    channels: int,
    size: tuple[int, int] = (64, 64),
    *,
    dynamic: bool = True,
    exporter: Exporter = "torchscript",
    opset: int | None = None,
    stride: int = 1,
) -> None:
    """Write ``module``, in eval mode, as ONNX: ``image`` (N, C, H, W) float32 -> ``logits`` (N, K, H', W') float32.

    ``size`` is the height and width of the tracing example, and of every later input unless ``dynamic``. ``opset`` is
    17 for the TorchScript exporter and 18, its minimum, for dynamo. Dynamo proves that shapes agree and so needs height
    and width to be declared as multiples of ``stride``; TorchScript does not.

    Raises ValueError for an unknown exporter and for dynamo with an opset below 18. The module's training flag is kept.
    """
    if exporter not in {"torchscript", "dynamo"}:
        raise ValueError(f"exporter must be torchscript or dynamo, got {exporter!r}")
    opset = opset or (17 if exporter == "torchscript" else 18)
    if exporter == "dynamo" and opset < 18:
        raise ValueError(f"the dynamo exporter writes opset 18 and newer, asked for {opset}")
    example = torch.zeros(2, channels, *size)  # a batch of 1 would be taken for a constant
    was_training = module.training
    module.eval()
    try:
        with quiet(), bins_of_any_size():
            if exporter == "torchscript":
                axes = AXES if dynamic else None
                export_torchscript(module, example if dynamic else example[:1], path_or_buffer, opset, axes)
            else:
                export_dynamo(module, example if dynamic else example[:1], path_or_buffer, opset, stride, dynamic)
    finally:
        module.train(was_training)


def export_torchscript(
    module: nn.Module,
    example: torch.Tensor,
    path_or_buffer: str | os.PathLike[str] | io.BytesIO,
    opset: int,
    axes: dict[str, dict[int, str]] | None,
) -> None:
    """Write ``module`` with the TorchScript exporter; ``axes`` are its dynamic axes, None for a fixed size."""
    torch.onnx.export(
        module,
        (example,),
        path_or_buffer,  # a buffer is accepted here, though not documented
        dynamo=False,
        opset_version=opset,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        dynamic_axes=axes,
    )


def export_dynamo(
    module: nn.Module,
    example: torch.Tensor,
    path_or_buffer: str | os.PathLike[str] | io.BytesIO,
    opset: int,
    stride: int,
    dynamic: bool,
) -> None:
    """Write ``module`` with the dynamo exporter, for sizes that are multiples of ``stride`` if ``dynamic``."""
    shapes: list[dict[int, Any]] | None = None
    if dynamic:
        names = {2: "height", 3: "width"}
        sides = {
            # Dynamo finds the smallest size itself; sizes with a name, and multiples, must be given.
            axis: torch.export.Dim.DYNAMIC if stride == 1 else stride * torch.export.Dim(f"{name}_strides")
            for axis, name in names.items()
        }
        shapes = [{0: torch.export.Dim("batch"), **sides}]
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        opset_version=opset,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        dynamic_shapes=shapes,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    if isinstance(path_or_buffer, io.BytesIO):
        path_or_buffer.write(proto.SerializeToString())
    else:
        with open(path_or_buffer, "wb") as file:  # noqa: PTH123  # os.PathLike, not only Path
            file.write(proto.SerializeToString())
