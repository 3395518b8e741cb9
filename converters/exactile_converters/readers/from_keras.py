"""Entries for Keras 3 (``.keras``, whichever backend runs it) and for a TensorFlow SavedModel, through tf2onnx."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exactile.errors import ModelError
from exactile_converters.exporters.quiet import first_lines, quiet
from exactile_converters.networks.agreement import Exported, compare_with_framework
from exactile_converters.prepare.from_onnx import prepare_network

SIDE_PX = 256
"""Size of the export where it needs one: divisible by all usual strides. The size is released afterwards."""


def from_keras(path: Path, *, output_name: str | None = None) -> Exported:
    """Load a Keras model, export it with Keras itself, and compare. Raises ModelError.

    Custom layers must be registered with Keras before; code inside the file is not run.
    """
    try:
        with quiet():
            import keras
    except ImportError as error:
        raise ModelError("Keras models need Keras and a backend: pip install 'exactile[convert,keras]'") from error
    if not path.is_file():
        raise ModelError(f"no file at {path}")
    try:
        with quiet():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise ModelError(f"{path} cannot be loaded by Keras: {first_lines(error)}") from error
    return from_keras_model(model, name=path.name, output_name=output_name)


def from_keras_model(model: Any, *, name: str, output_name: str | None = None) -> Exported:
    """Export a model in memory, which takes one image: (N, H, W, C) or (N, C, H, W), by Keras' own setting."""
    import keras

    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ModelError(f"{name}: an image input of 4 dimensions is expected, it takes {shape}")
    last = keras.config.image_data_format() == "channels_last"
    channels = shape[3] if last else shape[1]
    sides = [side or SIDE_PX for side in (shape[1:3] if last else shape[2:4])]
    fixed = (*sides, channels) if last else (channels, *sides)
    traced, proto = _exported(keras, model, fixed, name)

    def framework(image: NDArray[np.float32]) -> NDArray[Any]:
        with quiet():
            found = traced(image, training=False)
        while isinstance(found, (list, tuple, dict)):
            found = next(iter(found.values() if isinstance(found, dict) else found))
        return np.asarray(keras.ops.convert_to_numpy(found))

    agreement = compare_with_framework(
        proto,
        framework,
        channels=channels,
        sizes=((sides[0], sides[1]),),
        name=name,
        output_name=output_name,
        channels_last=last,
    )
    return Exported(network=prepare_network(proto, name=name, output_name=output_name), agreement=agreement)


def from_saved_model(path: Path, *, output_name: str | None = None) -> Exported:
    """Convert a TensorFlow SavedModel with tf2onnx, in a separate process, and compare. Raises ModelError."""
    try:
        with quiet():
            import tensorflow as tf
            import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ModelError("a SavedModel needs TensorFlow and tf2onnx: pip install tensorflow-cpu tf2onnx") from error
    with tempfile.TemporaryDirectory(prefix="exactile-") as folder:
        target = Path(folder) / "model.onnx"
        command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(path), "--opset", "17"]
        done = subprocess.run([*command, "--output", str(target)], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode or not target.is_file():
            raise ModelError(f"{path}: tf2onnx cannot convert it: {done.stderr.strip()[-300:]}")
        proto = onnx.load(str(target))
    with quiet():
        loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    (taken,) = serve.structured_input_signature[1].values()
    height, width, channels = (side or SIDE_PX for side in taken.shape[1:])

    def framework(image: NDArray[np.float32]) -> NDArray[Any]:
        found = serve(**{taken.name: tf.constant(image)})
        return np.asarray(next(iter(found.values())).numpy())

    agreement = compare_with_framework(
        proto,
        framework,
        channels=channels,
        sizes=((height, width),),
        name=path.name,
        output_name=output_name,
        channels_last=True,
    )
    return Exported(network=prepare_network(proto, name=path.name, output_name=output_name), agreement=agreement)


def _exported(keras: Any, model: Any, fixed: tuple[int, ...], name: str) -> tuple[Any, onnx.ModelProto]:
    """Return the model that was exported, with free sizes if its backend can, and its ONNX form."""
    tries: list[Callable[[], Any]] = [lambda: model, lambda: _at_size(keras, model, fixed)]
    if keras.backend.backend() == "torch" and None in model.input_shape[1:]:
        tries = tries[1:]
    failure: Exception | None = None
    for make in tries:
        try:
            with quiet():
                traced = make()
                traced(np.zeros((1, *fixed), np.float32))  # Keras exports only what was called
                return traced, _export(traced)
        except Exception as error:  # noqa: BLE001  # whatever goes wrong inside an exporter
            failure = error
    raise ModelError(f"{name}: Keras cannot export it to ONNX: {first_lines(failure)}") from failure


def _at_size(keras: Any, model: Any, shape: tuple[int, ...]) -> Any:
    """Return the same model for images of one size: on PyTorch, Keras traces one pixel where sizes are free."""
    fixed = keras.models.clone_model(model, input_tensors=keras.Input(shape))
    fixed.set_weights(model.get_weights())
    return fixed


def _export(model: Any) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="exactile-") as folder:
        target = Path(folder) / "model.onnx"
        model.export(str(target), format="onnx", verbose=False)
        return onnx.load(str(target))
