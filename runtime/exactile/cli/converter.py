"""The one place where the command line reaches for the converter, which a deployment may do without."""

from __future__ import annotations

from types import ModuleType

from exactile.errors import ModelError


def load_converter() -> ModuleType:
    """``exactile_converters.deploy``, or a ModelError that says what to install."""
    try:
        from exactile_converters import deploy
    except ImportError as error:
        raise ModelError(
            f"reading a plain ONNX model needs the converter ({error.name} is missing): pip install 'exactile[convert]'"
        ) from error
    return deploy
