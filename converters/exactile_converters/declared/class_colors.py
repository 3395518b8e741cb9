"""Colours of classes, as #rrggbb."""

from __future__ import annotations

import colorsys

from exactile.errors import OptionError


def usual_color(index: int) -> str:
    """Return black for the first class, usually the background, then hues far apart."""
    if index == 0:
        return "#000000"
    red, green, blue = colorsys.hsv_to_rgb(index * 0.381966 % 1, 0.75, 0.95)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"


def hex_color(color: str) -> str:
    """Return ``color`` with its number sign, in lower case. Raises OptionError if it is not a colour."""
    text = color.lower() if color.startswith("#") else f"#{color.lower()}"
    if len(text) != 7 or any(digit not in "0123456789abcdef" for digit in text[1:]):
        raise OptionError(f"a colour is six hexadecimal digits, #rrggbb; got {color!r}")
    return text
