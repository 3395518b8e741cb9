"""``python make_keras.py``: export the networks of ``nets_keras.py`` by Keras itself, to ``keras_NAME.onnx``.

Keras traces an image of one pixel where sizes are free, and fails: sizes are fixed here.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

from nets_keras import CHANNELS, NETS, build

HERE = Path(__file__).parent
SIZE = 64


def main() -> None:
    for name in sorted(NETS.keys() - {"modern"}):  # its layer normalisation is not exported
        model = build(name, SIZE)
        path = HERE / f"keras_{name}.onnx"
        model(np.zeros((1, SIZE, SIZE, CHANNELS), "float32"))  # only then can it be exported
        try:
            model.export(path, format="onnx", verbose=False)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            continue
        print(f"keras {keras.__version__} on {keras.backend.backend()}: {path.name} {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
