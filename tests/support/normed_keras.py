"""Small Keras networks that take statistics of the whole image."""

from __future__ import annotations

from typing import Any

from keras import Input, Model, layers


def excited(x: Any) -> Any:
    """Squeeze-and-excitation by dense layers on pooled pixels that keep their axes."""
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Dense(8, activation="sigmoid")(layers.Dense(4, activation="relu")(pooled))
    return layers.Multiply()([x, gate])


def excited_vector(x: Any) -> Any:
    """The same on a vector."""
    pooled = layers.GlobalAveragePooling2D()(x)
    gate = layers.Dense(8, activation="sigmoid")(layers.Dense(4, activation="relu")(pooled))
    return layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)])


def largest(x: Any) -> Any:
    return layers.Subtract()([x, layers.GlobalMaxPooling2D(keepdims=True)(x)])


def grouped(groups: int) -> Any:
    def block(x: Any) -> Any:
        return layers.GroupNormalization(groups)(x)  # a layer of its own at each place

    return block


BLOCKS = {
    "groups": grouped(4),
    "group_of_all": grouped(1),
    "group_for_each_channel": grouped(-1),
    "excited": excited,
    "excited_vector": excited_vector,
    "largest": largest,
}


def build(name: str) -> Any:
    """A U-Net of two levels with the block at both: (N, H, W, 3) -> (N, H, W, 3)."""
    block, image = BLOCKS[name], Input((None, None, 3))
    skip = block(layers.Conv2D(8, 3, padding="same", activation="relu")(image))
    low = block(layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(skip))
    joined = layers.Concatenate()([skip, layers.UpSampling2D(2)(low)])
    return Model(image, layers.Conv2D(3, 3, padding="same")(joined))
