"""What tifffile logs about a file: it reports a damaged structure and continues, where we must not."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from exactile.errors import ExactileError, SourceError

LONGEST_DETAIL = 300
"""Characters of a foreign message that are passed on; some hold a whole directory."""

_LOGGER = logging.getLogger("tifffile")
# Without any handler, Python prints a library's warnings to the user's terminal.
_LOGGER.addHandler(logging.NullHandler())

_BAD_TAG = re.compile(r"TiffTag (\d+) @")
_STRUCTURAL_TAGS = {
    *(254, 256, 257, 258, 259, 262, 266),  # sizes, bits, compression, photometric, fill order
    *(273, 277, 278, 279, 284, 292, 293, 317),  # strips, samples, planar configuration, predictor
    *(322, 323, 324, 325, 330, 338, 339, 347),  # tiles, SubIFDs, extra samples, sample format, JPEG tables
    *(512, 513, 514, 515, 519, 520, 521, 530, 532),  # JPEG, YCbCr
    *(32997, 32998, 42113),  # depth, no-data
}


class _Collector(logging.Handler):
    """Collects the errors logged by the thread that created it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.messages.append(record.getMessage())


@contextmanager
def structure_errors(name: str) -> Iterator[None]:
    """Turn what tifffile raises, and what it logs about tags that determine pixels, into SourceError."""
    collector = _Collector()
    _LOGGER.addHandler(collector)
    try:
        yield
    except ExactileError as error:
        if collector.messages and isinstance(error, SourceError):
            raise SourceError(f"{error}; tifffile says: {collector.messages[0]}") from error
        raise
    # A damaged structure makes tifffile raise nearly anything (struct.error, KeyError, ZeroDivisionError, ...).
    except Exception as error:
        detail = " ".join(str(error).split())[:LONGEST_DETAIL] or type(error).__name__
        raise SourceError(f"{name}: is not a readable TIFF file: {detail}") from error
    finally:
        _LOGGER.removeHandler(collector)
    for message in collector.messages:
        tag = _BAD_TAG.search(message)
        if tag and int(tag[1]) in _STRUCTURAL_TAGS:
            raise SourceError(f"{name}: has a damaged structure: {message}")
