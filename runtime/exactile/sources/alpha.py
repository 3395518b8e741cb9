"""An alpha channel that the network does not take is left out, where the file says that it is one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from exactile.sources.metadata import ImageMetadata
from exactile.sources.protocol import Source


@runtime_checkable
class LeavesOutAlpha(Protocol):
    """A source whose file may mark a channel as alpha: ``metadata.alpha``."""

    @property
    def metadata(self) -> ImageMetadata: ...

    def leave_out_alpha(self) -> None:
        """Deliver the other channels only from now on: ``channels``, ``identity`` and ``metadata`` change."""


def leave_out_alpha(source: Source, wanted_channels: int) -> None:
    """Leave the alpha channel of ``source`` out, where the other channels are as many as are wanted.

    Channels that were chosen by the caller stay as they are: sources then have no ``metadata.alpha`` to leave out.
    """
    if not isinstance(source, LeavesOutAlpha):
        return
    alpha = source.metadata.alpha
    if alpha is not None and not alpha.left_out and source.channels == wanted_channels + 1:
        source.leave_out_alpha()
