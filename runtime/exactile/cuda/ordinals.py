"""Numbers of GPUs: as users write them, and checked against those that are there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from exactile.cuda.protocol import DeviceInfo
from exactile.errors import DeviceError, OptionError

DeviceChoice = Literal["cpu", "auto", "all"] | tuple[int, ...]
"""The processor, whatever is there, all GPUs, or GPUs by their ordinals (each once, as ordered by the user)."""

FORMS = "cpu, auto, cuda, cuda:0, cuda:0,cuda:1 or cuda:all"


def parse_devices(text: str) -> DeviceChoice:
    """Return what ``--device`` says; ``cuda`` is the first GPU. Raises OptionError."""
    if text in ("cpu", "auto"):
        return "cpu" if text == "cpu" else "auto"
    if text == "cuda:all":
        return "all"
    if text == "cuda":
        return (0,)
    ordinals = tuple(_ordinal(part.strip(), text) for part in text.split(","))
    if len(set(ordinals)) < len(ordinals):
        raise OptionError(f"--device {text} names a GPU twice")
    return ordinals


def device_at(devices: Sequence[DeviceInfo], ordinal: int) -> DeviceInfo:
    """Return the GPU ``ordinal``. Raises DeviceError that lists those there are."""
    for device in devices:
        if device.ordinal == ordinal:
            return device
    there = ", ".join(f"cuda:{device.ordinal} ({device.name})" for device in devices) or "none"
    raise DeviceError(f"cuda:{ordinal} was requested, but the GPUs here are: {there}. See also CUDA_VISIBLE_DEVICES")


def _ordinal(part: str, text: str) -> int:
    match = re.fullmatch(r"cuda:(\d{1,4})", part, re.ASCII)
    if match is None:
        raise OptionError(f"--device takes {FORMS}; got {text!r}")
    return int(match[1])
