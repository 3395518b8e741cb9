"""What a user would write: tifffile, NumPy and one ONNX Runtime session with its defaults."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import tifffile


def main(network: Path, images: Path, labels: Path) -> None:
    session = ort.InferenceSession(network, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    for image in sorted(images.glob("*.tif")):
        samples = tifffile.imread(image)
        tensor = np.ascontiguousarray(samples.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        (scores,) = session.run(None, {taken.name: tensor})
        tifffile.imwrite(labels / image.name, scores[0].argmax(0).astype(np.uint8), compression="zlib")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
