"""Small Keras networks with seeded random weights, NHWC, as users build them."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers

CHANNELS = 3


def block(x, features: int, **options):
    for _ in range(2):
        x = layers.Conv2D(features, 3, padding=options.get("padding", "same"), use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    return x


def unet(up: str, size: int | None = None) -> keras.Model:
    """Two levels; ``up`` is "transpose", "nearest" or "bilinear". Stride 4."""
    image = layers.Input((size, size, CHANNELS))
    skips, x = [], image
    for features in (4, 8):
        x = block(x, features)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, 8)
    for features, skip in zip((8, 4), reversed(skips), strict=True):
        if up == "transpose":
            x = layers.Conv2DTranspose(features, 2, strides=2)(x)
        else:
            x = layers.UpSampling2D(2, interpolation=up)(x)
        x = block(layers.Concatenate()([skip, x]), features)
    return keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(x))


def valid(size: int | None = None) -> keras.Model:
    """Unpadded convolutions, and a skip that is cropped to fit. Stride 2."""
    image = layers.Input((size, size, CHANNELS))
    skip = block(image, 4, padding="valid")
    x = layers.MaxPooling2D()(skip)
    x = block(x, 8, padding="valid")
    x = layers.Conv2DTranspose(4, 2, strides=2)(x)
    x = layers.Concatenate()([layers.Cropping2D(4)(skip), x])
    return keras.Model(image, layers.Conv2D(2, 1)(block(x, 4, padding="valid")))


def modern(size: int | None = None) -> keras.Model:
    """Depthwise, dilated and separable convolutions, normalisation over channels, the newer activations. Stride 1."""
    image = layers.Input((size, size, CHANNELS))
    x = layers.Conv2D(8, 3, padding="same", dilation_rate=2)(image)
    x = layers.Activation(partial(keras.activations.gelu, approximate=True))(x)
    x = layers.LayerNormalization(epsilon=1e-5)(x)
    x = layers.DepthwiseConv2D(5, padding="same", activation="hard_silu")(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.SeparableConv2D(8, 3, padding="same", activation="silu")(x)
    x = layers.ZeroPadding2D(1)(x)
    return keras.Model(image, layers.Conv2D(3, 3, activation="sigmoid")(x))


def squeeze_and_excite(size: int | None = None) -> keras.Model:
    """Not tileable: every pixel depends on the mean of the image."""
    image = layers.Input((size, size, CHANNELS))
    x = layers.Conv2D(8, 3, padding="same")(image)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    return keras.Model(image, layers.Conv2D(2, 1)(layers.Multiply()([x, gate])))


def dense_head(size: int | None = None) -> keras.Model:
    """Not tileable: a classifier of the whole image."""
    image = layers.Input((size or 32, size or 32, CHANNELS))
    x = layers.MaxPooling2D(4)(layers.Conv2D(4, 3, padding="same")(image))
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))


def group_norm(size: int | None = None) -> keras.Model:
    """Not tileable: statistics over the image."""
    image = layers.Input((size, size, CHANNELS))
    x = layers.Conv2D(8, 3, padding="same")(image)
    return keras.Model(image, layers.Conv2D(2, 1)(layers.GroupNormalization(4)(x)))


NETS = {
    "unet_transpose": partial(unet, "transpose"),
    "unet_nearest": partial(unet, "nearest"),
    "unet_bilinear": partial(unet, "bilinear"),
    "valid": valid,
    "modern": modern,
    "squeeze_and_excite": squeeze_and_excite,
    "dense_head": dense_head,
    "group_norm": group_norm,
}


def build(name: str, size: int | None = None) -> keras.Model:
    """With free height and width, or for images of ``size`` x ``size`` pixels."""
    keras.utils.set_random_seed(0)
    model = NETS[name](size=size)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):  # so that it is no identity
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights([gamma * 1.3, beta + 0.1, mean - 0.2, variance * 1.7])
    return model
