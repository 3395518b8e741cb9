"""``python -m tests.cuda_runtime.runs JOURNAL``: a network of ONNX Runtime on CUDA, with the real library, run twice.

Lines that begin with ``#`` in the journal say what CUDA was called for. Prints the operators that were refused in a
second network. In a process with the real library, see ``library.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from exactile.engines.onnx_runtime_cuda import OnnxRuntimeCudaNetwork
from exactile.errors import DeviceError

STREAM = 0x7F0012345680
ROWS, COLUMNS = 32, 64
# What a strip graph does but for convolutions, which would ask cuDNN.
STRIP = """
<ir_version: 8, opset_import: ["" : 17]>
strip (uint8[height, width, 3] image, float[1, 3, 4, rows_width] carry_in, float[1, 3, 1, 1] scale)
    => (uint8[out_height, out_width] result, float[1, 3, 4, out_width] carry_out)
<int64[1] zero = {0}, int64[1] two = {2}, int64[1] start = {-4}, int64[1] end = {1000}, int64[1] one = {1},
 float[4] twice = {1.0, 1.0, 2.0, 2.0}, float[4] half = {1.0, 1.0, 0.5, 0.5}>
{
    f = Cast <to = 1> (image)
    t = Transpose <perm = [2, 0, 1]> (f)
    u = Unsqueeze (t, zero)
    n = Mul (u, scale)
    j = Concat <axis = 2> (carry_in, n)
    b = Mul (j, weight)
    up = Resize <mode = "linear"> (b, , twice)
    down = Resize <mode = "nearest"> (up, , half)
    shape = Shape (down)
    same = Reshape (down, shape)
    p = Softmax <axis = 1> (same)
    a = ArgMax <axis = 1, keepdims = 0> (p)
    s = Squeeze (a, zero)
    c = Slice (s, zero, end, zero, one)
    result = Cast <to = 2> (c)
    carry_out = Slice (n, start, end, two, one)
}
"""
REFUSED = """
<ir_version: 8, opset_import: ["" : 22]>
net (float[height, width, 3] image) => (float[oh, ow, 3] result)
{
    p = MaxPool <kernel_shape = [1]> (image)
    result = MaxPool <kernel_shape = [1]> (p)
}
"""


def strip() -> bytes:
    model = onnx.parser.parse_model(STRIP)
    weight = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    return model.SerializeToString()


def main(journal: Path) -> None:
    def say(what: str) -> None:
        with journal.open("a") as file:
            file.write(f"# {what}\n")

    say("open")
    network = OnnxRuntimeCudaNetwork(
        strip(),
        tile_shape=(ROWS, COLUMNS),
        output_shapes={"result": (ROWS + 4, COLUMNS), "carry_out": (1, 3, 4, COLUMNS)},
        ordinal=0,
        stream=STREAM,
        dimensions={"rows_width": COLUMNS},
    )
    arrays = {
        "image": np.zeros((ROWS, COLUMNS, 3), np.uint8),
        "carry_in": np.zeros((1, 3, 4, COLUMNS), np.float32),
        "scale": np.ones((1, 3, 1, 1), np.float32),
        "result": np.zeros((ROWS + 4, COLUMNS), np.uint8),
        "carry_out": np.zeros((1, 3, 4, COLUMNS), np.float32),
    }
    for turn in range(3):
        say(f"run {turn}")
        addresses = {name: array.ctypes.data for name, array in arrays.items()}
        network.enqueue(addresses, rows=ROWS, stream=STREAM)
    say("close")
    network.close()
    try:
        OnnxRuntimeCudaNetwork(
            onnx.parser.parse_model(REFUSED).SerializeToString(),
            tile_shape=(ROWS, COLUMNS),
            output_shapes={"result": (ROWS, COLUMNS, 3)},
            ordinal=0,
            stream=STREAM,
        )
    except DeviceError as error:
        sys.stdout.write(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
