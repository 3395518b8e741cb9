"""The notes of a summary: on the model's own file, on how the image was read, and on how the result was stored."""

from __future__ import annotations

from exactile.contract import Contract
from exactile.sinks.protocol import FindingsSink, Sink
from exactile.sources.metadata import metadata_of
from exactile.sources.pixel_size import TOLERANCE, PixelSize
from exactile.sources.protocol import Source

MICRONS = 1e6
"""Microns in a metre."""

ON_THE_GROUND_UM = 1e4
"""Pixels of a centimetre and more are shown in metres."""


def notes_of(contract: Contract, source: Source, sink: Sink) -> tuple[str, ...]:
    """Return notes for people on a run of ``contract``'s model over ``source``."""
    return (
        *contract.notes,
        *pixel_size_notes(contract.pixel_size_um, pixel_size_of(source)),
        *metadata_of(source).told,
        *(sink.notes if isinstance(sink, FindingsSink) else ()),
    )


def pixel_size_of(source: Source) -> PixelSize | None:
    """Return height and width of a pixel in micrometres, from the file's pixel size or georeference."""
    if source.pixel_size_um is not None:
        return source.pixel_size_um
    georeference = metadata_of(source).georeference
    metres = georeference.pixel_m if georeference is not None else None
    return None if metres is None else (metres[0] * MICRONS, metres[1] * MICRONS)


def pixel_size_notes(wanted_um: float | None, found: PixelSize | None) -> tuple[str, ...]:
    """Return a note if the model was made for pixels of ``wanted_um``, and the image's differ, or are unknown."""
    if wanted_um is None:
        return ()
    said = f"its file declares that the model was made for pixels of {_shown(wanted_um)}"
    if found is None:
        return (f"{said}; the image's pixel size is not known",)
    if max(abs(side / wanted_um - 1) for side in found) <= TOLERANCE:
        return ()
    sizes = " x ".join(dict.fromkeys(map(_shown, found)))
    way = "" if wanted_um >= ON_THE_GROUND_UM else f": --mpp {wanted_um:g} takes the level with such pixels"
    return (f"{said}; the image's are {sizes}, and are never resampled{way}",)


def _shown(side_um: float) -> str:
    return f"{side_um / MICRONS:.4g} m" if side_um >= ON_THE_GROUND_UM else f"{side_um:.4g} micrometres"
