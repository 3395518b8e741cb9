"""Parse option values of the command line: tiles, lists of numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from exactile.errors import OptionError


def parse_tile(text: str | None, option: str = "--tile") -> tuple[int, int] | None:
    """Parse ``512`` or ``512x768`` (height x width)."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+)(?:\s*[xX]\s*(\d+))?\s*", text)
    if not match or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise OptionError(f"{option} takes a size such as 512 or 512x768 (height x width), got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def parse_lanes(text: str) -> int | None:
    """Parse ``auto`` or a number."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"--lanes takes a number, or auto, got {text!r}")
    return int(text)


def parse_numbers(option: str, texts: Sequence[str] | None, default: float) -> tuple[float, ...]:
    """Parse ``0.5``, ``0.4,0.5,0.6``, or the option repeated."""
    if not texts:
        return (default,)
    try:
        return tuple(float(part) for text in texts for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"--{option} takes a number, or one for each channel separated by commas; got {' '.join(texts)!r}"
        ) from None


def parse_channels(text: str | None) -> tuple[int, ...] | None:
    """Parse ``0``, ``0,1,2`` or ``2,0``: channels of the image, in the order in which the model takes them."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--channels takes channel numbers separated by commas, got {text!r}") from None


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """Parse names separated by commas."""
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise OptionError(f"names are separated by commas and not empty, got {text!r}")
    return names


def parse_capabilities(text: str | None) -> tuple[tuple[int, int], ...] | None:
    """Parse ``8.6`` or ``8.6,8.9``: compute capabilities of GPUs."""
    if text is None:
        return None
    matches = [re.fullmatch(r"(\d{1,3})\.(\d{1,3})", part.strip()) for part in text.split(",")]
    found = tuple((int(match[1]), int(match[2])) for match in matches if match)
    if len(found) < len(matches):
        raise OptionError(f"--compute-capability takes numbers such as 8.6 or 8.6,8.9, got {text!r}")
    return found
