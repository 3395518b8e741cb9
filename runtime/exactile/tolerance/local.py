"""Check which runs may have a smaller halo: those of local networks, on a CPU."""

from __future__ import annotations

from exactile.contract import DeployedModel, ResultOutput
from exactile.contract.tolerance import Tolerance
from exactile.errors import OptionError
from exactile.processors.host import HostProcessor
from exactile.processors.protocol import Processor
from exactile.tolerance.difference import LABEL_KINDS


def check_tolerance(
    model: DeployedModel, processor: Processor, image: tuple[int, int], tolerance: Tolerance
) -> HostProcessor:
    """Return the CPU processor. Raises OptionError if a run of an ``image`` of (height, width) must be exact."""
    host = check_measurable(model, processor, image)
    _check_shown(tolerance, model.contract.result)
    return host


def _check_shown(tolerance: Tolerance, result: ResultOutput) -> None:
    """Raise OptionError if such an error does not apply to ``result``."""
    if tolerance.kind == "scores" and result.kind in LABEL_KINDS:
        raise OptionError(
            f"--tolerance {tolerance.text} bounds the error of scores, and the result holds {result.kind}. What to do: "
            "--tolerance labels:1e-5, the share of labels that may differ; or --output probabilities or raw"
        )
    if tolerance.kind == "labels" and result.kind not in LABEL_KINDS and result.channels == 1:
        raise OptionError(
            f"--tolerance {tolerance.text} bounds the share of other labels, and the result is one map of scores. "
            "What to do: --tolerance 1e-4, relative to their range"
        )


def check_measurable(model: DeployedModel, processor: Processor, image: tuple[int, int]) -> HostProcessor:
    """Return the CPU processor. Raises OptionError if results depend on the whole image, or on the position in it."""
    geometry = model.contract.geometry.of_size(image)
    reason = ""
    if model.levels or model.reads or model.contract.in_passes:
        reason = "takes statistics of the whole image"
    elif model.contract.obstacles:
        reason = f"runs in one pass only ({model.contract.obstacles[0]})"
    elif geometry.placed:
        reason = f"depends on the position in images of {image[0]} x {image[1]} pixels"
    elif one_pass := geometry.y.one_pass or geometry.x.one_pass:
        reason = f"cannot be cut at {image[0]} x {image[1]} pixels: {one_pass}"
    if reason:
        raise OptionError(
            f"{model.contract.model_name} {reason}; halos are made smaller (--tolerance, --erf) only for networks "
            f"whose results depend on nearby pixels. What to do: run it exactly, without --tolerance"
        )
    if not isinstance(processor, HostProcessor):
        raise OptionError(
            "--tolerance and --erf are for runs on a CPU; on GPUs, engines have their halo built in. What to do: "
            "--device cpu"
        )
    return processor
