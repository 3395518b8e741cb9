"""Leave out an alpha channel that the network does not take, if the file marks it as one."""

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
        """Deliver only the other channels from now on: ``channels``, ``identity`` and ``metadata`` change."""


def leave_out_alpha(source: Source, wanted_channels: int) -> None:
    """Leave out the alpha channel of ``source``, if the number of other channels is the wanted one.

    Channels that the caller chose stay as they are: sources then have no ``metadata.alpha`` to leave out.
    """
    if not isinstance(source, LeavesOutAlpha):
        return
    alpha = source.metadata.alpha
    if alpha is not None and not alpha.left_out and source.channels == wanted_channels + 1:
        source.leave_out_alpha()
