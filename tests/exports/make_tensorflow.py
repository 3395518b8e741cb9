"""``python make_tensorflow.py``: export the same networks by tf2onnx, to ``tensorflow_NAME_OPSET.onnx``."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf
import tf2onnx

from nets_keras import build

HERE = Path(__file__).parent

FIXED = 64
"""For bilinear up-sampling, which Keras does not trace with free sizes."""

EXPORTS = [
    *((name, 17, None) for name in ("unet_transpose", "unet_nearest", "valid", "modern")),
    *((name, 17, None) for name in ("squeeze_and_excite", "dense_head", "group_norm")),
    *(("unet_nearest", opset, None) for opset in (9, 10, 11, 13)),
    *((name, 17, FIXED) for name in ("unet_transpose", "unet_bilinear")),
    *(("unet_bilinear", opset, FIXED) for opset in (11, 13)),  # tf2onnx needs 11 for it
]


def main() -> None:
    for name, opset, size in EXPORTS:
        model = build(name, size)
        signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")]
        path = HERE / f"tensorflow_{name}{f'_{size}px' if size else ''}_{opset}.onnx"
        function = tf.function(model, input_signature=signature)
        try:
            tf2onnx.convert.from_function(function, input_signature=signature, opset=opset, output_path=str(path))
        except Exception as error:
            print(f"{name} {opset}: {type(error).__name__}: {str(error)[:300]}")
            continue
        print(f"tensorflow {tf.__version__}, tf2onnx {tf2onnx.__version__}: {path.name} {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
