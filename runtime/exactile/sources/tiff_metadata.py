"""What the tags of a TIFF image say beside its pixels."""

from __future__ import annotations

from exactile.sources.metadata import Alpha, ImageMetadata
from exactile.sources.tiff_choice import ChosenPages

_WHITE_IS_ZERO = 0
_ASSOCIATED, _UNASSOCIATED = 1, 2


def read_metadata(chosen: ChosenPages) -> ImageMetadata:
    """Of the image that was chosen."""
    notes: tuple[str, ...] = ()
    if chosen.keyframe.photometric == _WHITE_IS_ZERO:
        notes = ("by its tag 0 is white in this image (MinIsWhite); samples are as stored, not inverted",)
    return ImageMetadata(alpha=_alpha(chosen), notes=notes)


def _alpha(chosen: ChosenPages) -> Alpha | None:
    """The one extra sample that the tag ExtraSamples calls alpha. Without the tag nothing is guessed."""
    keyframe = chosen.keyframe
    extra = tuple(int(kind) for kind in keyframe.extrasamples)
    marked = [index for index, kind in enumerate(extra) if kind in (_ASSOCIATED, _UNASSOCIATED)]
    channels = keyframe.samplesperpixel
    if len(marked) != 1 or len(chosen.pages) != 1 or channels <= len(extra):
        return None
    return Alpha(channel=channels - len(extra) + marked[0], premultiplied=extra[marked[0]] == _ASSOCIATED)
