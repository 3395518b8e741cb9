"""Metadata in the tags of a TIFF image."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from exactile.georeference import Georeference
from exactile.sources.metadata import Alpha, ImageMetadata
from exactile.sources.tiff.choice import ChosenPages

_WHITE_IS_ZERO = 0
_ASSOCIATED, _UNASSOCIATED = 1, 2
_ORIENTATION = 274
_MASK = 4
_MOST_PAGES_LOOKED_AT = 32
_TURNED = range(2, 9)


def read_metadata(chosen: ChosenPages) -> ImageMetadata:
    """Return the metadata of the chosen image."""
    notes: tuple[str, ...] = ()
    if chosen.keyframe.photometric == _WHITE_IS_ZERO:
        notes += ("by its tag, 0 is white in this image (MinIsWhite); samples are as stored, not inverted",)
    orientation = _orientation(chosen.keyframe)
    if orientation != 1:
        turned = f"by its tag Orientation ({orientation}) viewers turn this image; it was read as stored"
        notes += (f"{turned}, and a TIFF result has the same tag (.zarr and .npy have none)",)
    place = _georeference(chosen)
    if isinstance(place, str):
        notes += (place,)
    return ImageMetadata(
        alpha=_alpha(chosen),
        georeference=place if isinstance(place, Georeference) else None,
        orientation=orientation,
        nodata=_nodata(chosen),
        mask_page=_mask_page(chosen),
        notes=notes,
    )


def _alpha(chosen: ChosenPages) -> Alpha | None:
    """Return the extra sample that the tag ExtraSamples marks as alpha. Nothing is guessed without the tag."""
    keyframe = chosen.keyframe
    extra = tuple(int(kind) for kind in keyframe.extrasamples)
    marked = [index for index, kind in enumerate(extra) if kind in (_ASSOCIATED, _UNASSOCIATED)]
    channels = keyframe.samplesperpixel
    if len(marked) != 1 or len(chosen.pages) != 1 or channels <= len(extra):
        return None
    return Alpha(channel=channels - len(extra) + marked[0], premultiplied=extra[marked[0]] == _ASSOCIATED)


def _mask_page(chosen: ChosenPages) -> int | None:
    """Return the page that is the transparency mask of an image of this size, as GDAL writes them, among the first
    pages.
    """
    keyframe = chosen.keyframe
    pages = keyframe.parent.pages
    size = keyframe.imagelength, keyframe.imagewidth
    for index in range(min(len(pages), _MOST_PAGES_LOOKED_AT)):
        if int(getattr(pages[index], "subfiletype", 0)) & _MASK:
            page = pages[index].aspage()
            if (page.imagelength, page.imagewidth) == size and page is not keyframe:
                return index
    return None


def _orientation(page: Any) -> int:
    value = _value(page, _ORIENTATION)
    return int(value) if isinstance(value, int) and value in _TURNED else 1


def _georeference(chosen: ChosenPages) -> Georeference | str | None:
    """Return the georeference of the full-size page, at the size of the chosen level; or why there is none."""
    page = chosen.full or chosen.keyframe
    values = {
        "pixel_scale": _numbers(page, 33550),
        "tiepoints": _numbers(page, 33922),
        "transformation": _numbers(page, 34264),
        "keys": tuple(int(value) for value in _numbers(page, 34735)),
        "numbers": _numbers(page, 34736),
        "text": _text(page, 34737),
    }
    if not any(values[name] for name in ("tiepoints", "transformation", "keys")):
        return None
    try:
        place = Georeference(**values)  # type: ignore[arg-type]
        full, size = page.shaped[2:4], chosen.keyframe.shaped[2:4]
        return place.resampled((Fraction(size[0], full[0]), Fraction(size[1], full[1])))
    # A place that is no number, or of a raster without pixels.
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        return f"its georeference is damaged and was left out: {error}"


def _nodata(chosen: ChosenPages) -> float | None:
    """Return the value of GDAL's tag, text, of the page or of the full-size one."""
    text = _text(chosen.keyframe, 42113) or (_text(chosen.full, 42113) if chosen.full is not None else "")
    try:
        return float(text.strip("\0 "))
    except ValueError:
        return None


def _numbers(page: Any, code: int) -> tuple[Any, ...]:
    value = _value(page, code)
    if isinstance(value, (int, float)):
        return (value,)
    return value if isinstance(value, tuple) and all(isinstance(part, (int, float)) for part in value) else ()


def _text(page: Any, code: int) -> str:
    value = _value(page, code)
    return value if isinstance(value, str) and value.isascii() else ""


def _value(page: Any, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value
