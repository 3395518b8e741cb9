"""The only module that imports the converter, which a deployment may do without."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from exactile.errors import ModelError


def load_converter() -> ModuleType:
    """Return ``exactile_converters.deploy``, or a ModelError that says what to install."""
    return _load("exactile_converters.deploy")


def load_prover() -> ModuleType:
    """Return ``exactile_converters.bundles.proven``, or a ModelError that says what to install."""
    return _load("exactile_converters.bundles.proven")


def load_verifier() -> ModuleType:
    """Return ``exactile_converters.verify``, or a ModelError that says what to install."""
    return _load("exactile_converters.verify")


def load_prober() -> ModuleType:
    """``exactile_converters.probed.deploy``, or a ModelError that says what to install."""
    return _load("exactile_converters.probed.deploy")


def load_bundle_maker() -> ModuleType:
    """Return ``exactile_converters.convert``, or a ModelError that says what to install."""
    return _load("exactile_converters.convert")


def load_engine_builder() -> ModuleType:
    """Return ``exactile_converters.tensorrt_engine``, or a ModelError that says what to install."""
    return _load("exactile_converters.tensorrt_engine.engines")


def _load(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(
            f"reading a plain ONNX model needs the converter ({error.name} is missing): pip install "
            "'exactile[convert]'; a bundle, made elsewhere by exactile convert, runs without"
        ) from error
