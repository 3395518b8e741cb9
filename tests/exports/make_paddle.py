"""``python make_paddle.py NAME``: export a small PaddlePaddle network by paddle2onnx, to ``paddle_NAME.onnx``.

One a process: paddle2onnx ends the process when it meets something that it does not know.
"""

from __future__ import annotations

import sys
from pathlib import Path

import paddle
from paddle import nn

HERE = Path(__file__).parent
CHANNELS = 3


class Block(nn.Sequential):
    def __init__(self, inputs: int, features: int) -> None:
        super().__init__(
            *(nn.Conv2D(inputs, features, 3, padding=1), nn.BatchNorm2D(features), nn.ReLU()),
            *(nn.Conv2D(features, features, 3, padding=1), nn.BatchNorm2D(features), nn.ReLU()),
        )


class UNet(nn.Layer):
    """Two levels, stride 4. Transposed convolutions: paddle2onnx does not take nn.Upsample of this version."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.lowest = Block(CHANNELS, 4), Block(4, 8), Block(8, 8)
        self.pool = nn.MaxPool2D(2)
        self.ups = nn.LayerList(
            [nn.Conv2DTranspose(inputs, outputs, 2, stride=2) for inputs, outputs in ((8, 8), (8, 4))]
        )
        self.third, self.last = Block(16, 8), Block(8, 4)
        self.head = nn.Conv2D(4, 3, 1)

    def forward(self, image):
        one = self.first(image)
        two = self.second(self.pool(one))
        x = self.lowest(self.pool(two))
        x = self.third(paddle.concat([two, self.ups[0](x)], axis=1))
        return nn.functional.softmax(self.head(self.last(paddle.concat([one, self.ups[1](x)], axis=1))), axis=1)


class HardSwish(nn.Layer):
    """Depthwise, dilated, hard activations. Stride 1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2D(CHANNELS, 8, 3, padding=2, dilation=2)
        self.depthwise = nn.Conv2D(8, 8, 5, padding=2, groups=8)
        self.norm, self.head = nn.BatchNorm2D(8), nn.Conv2D(8, 2, 1)

    def forward(self, image):
        x = nn.functional.hardswish(self.norm(self.stem(image)))
        return nn.functional.sigmoid(self.head(nn.functional.hardsigmoid(self.depthwise(x)) * x))


class SqueezeAndExcite(nn.Layer):
    """Not tileable."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = nn.Conv2D(CHANNELS, 8, 3, padding=1), nn.Conv2D(8, 8, 1), nn.Conv2D(8, 2, 1)

    def forward(self, image):
        x = self.stem(image)
        return self.head(x * nn.functional.hardsigmoid(self.gate(nn.functional.adaptive_avg_pool2d(x, 1))))


NETS = {
    "unet_transpose": UNet,
    "hardswish": HardSwish,
    "squeeze_and_excite": SqueezeAndExcite,
}


def main() -> None:
    for name, build in NETS.items():
        if name not in sys.argv[1:]:
            continue
        paddle.seed(0)
        model = build()
        model.eval()
        spec = [paddle.static.InputSpec([-1, CHANNELS, -1, -1], "float32", "image")]
        path = HERE / f"paddle_{name}.onnx"
        try:
            paddle.onnx.export(model, str(path.with_suffix("")), input_spec=spec, opset_version=13)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            continue
        print(f"paddle {paddle.__version__}: {path.name} {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
