"""Check that an image fits the model, and a label its result."""

from __future__ import annotations

import numpy as np

from exactile.contract import ImageInput, ResultOutput
from exactile.errors import ChannelError, OptionError, PlanError
from exactile.sources.metadata import metadata_of
from exactile.sources.protocol import Source
from exactile.sources.sample_types import stored_type


def check_source(image: ImageInput, source: Source) -> None:
    """Raise ChannelError and PlanError if ``source`` does not fit the model, which takes ``image``."""
    if source.channels != image.channels:
        raise ChannelError(
            f"the image has {source.channels} channel(s) and the model takes {image.channels}; "
            f"{_channel_remedy(source, image.channels)}"
        )
    if np.dtype(source.dtype) != np.dtype(image.dtype):
        stored, read = stored_type(source), ""
        if stored != source.dtype:
            read = f", which are read as {source.dtype},"
        raise PlanError(f"the image holds {stored} samples{read} and the model was deployed for {image.dtype}")


def check_label(result: ResultOutput, label: int, of: str) -> None:
    """Raise OptionError if ``result`` has no labels, or ``label``, that of ``of``, is not one of them."""
    if result.channels:
        raise OptionError(f"a label is given to {of}; the result must be labels, not maps")
    held = np.iinfo(result.stored_dtype)
    if not held.min <= label <= held.max:
        raise OptionError(f"the label of {of}, {label}, is none that {result.stored_dtype} can hold")


def _channel_remedy(source: Source, wanted: int) -> str:
    """Return the option to type if the image has another number of channels than ``wanted``."""
    if source.height == wanted and "axes" not in source.identity():
        return (
            f"it was read as {source.height} x {source.width} pixels of {source.channels} channels. If its channels "
            "come first, say so with --axes CYX"
        )
    if source.channels == wanted + 1 and metadata_of(source).alpha is None and source.channels in (2, 4):
        leave = ",".join(map(str, range(wanted)))
        return (
            f"no tag says that one is alpha, so none is left out; choose which with --channels, e.g. --channels {leave}"
        )
    if source.channels >= wanted:
        return f"choose which with --channels, e.g. --channels {','.join(map(str, range(wanted)))}"
    if source.channels == 1:
        return f"to give it the one channel again and again, --channels {','.join('0' * wanted)}"
    return "choose an image with as many, or repeat channels with --channels, e.g. --channels " + ",".join(
        str(channel % source.channels) for channel in range(wanted)
    )
