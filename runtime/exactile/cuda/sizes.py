"""Sizes of buffers, and what a copy may touch, checked before the driver sees them."""

from __future__ import annotations

import numpy as np

from exactile.cuda.protocol import Bytes, Window
from exactile.errors import DeviceError


def check_size(size_bytes: int) -> None:
    """Raise DeviceError unless a buffer can have this size."""
    if size_bytes < 1:
        raise DeviceError(f"a buffer has at least one byte; {size_bytes:,} bytes were requested")


def check_copy(host: Bytes, device_bytes: int, window: Window | None) -> None:
    """Raise DeviceError unless ``host`` is bytes in a row, as many as go to or come from a buffer of ``device_bytes``.

    ``window``: where they lie in the buffer; None for its start.
    """
    if host.dtype != np.uint8 or host.ndim != 1 or not host.flags.c_contiguous:
        raise DeviceError(
            f"a copy's host side is contiguous bytes in one dimension; this is {host.dtype} of shape {host.shape}"
        )
    if window is None:
        if host.nbytes > device_bytes:
            raise DeviceError(f"a copy of {host.nbytes:,} bytes does not fit into a buffer of {device_bytes:,}")
        return
    _check_window(window, device_bytes)
    if host.nbytes != window.rows * window.row_bytes:
        raise DeviceError(
            f"{host.nbytes:,} bytes on the host's side of a copy, but {window.rows} rows of {window.row_bytes:,} bytes "
            "on the device's"
        )


def _check_window(window: Window, device_bytes: int) -> None:
    if window.rows < 1 or window.row_bytes < 1 or window.offset_bytes < 0 or window.pitch_bytes < window.row_bytes:
        raise DeviceError(f"not a window: {window}")
    end_bytes = window.offset_bytes + (window.rows - 1) * window.pitch_bytes + window.row_bytes
    if end_bytes > device_bytes:
        raise DeviceError(f"{window} ends at {end_bytes:,} bytes, beyond the buffer's {device_bytes:,}")
