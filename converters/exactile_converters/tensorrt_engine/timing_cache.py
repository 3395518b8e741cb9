"""Keep what TensorRT measured in earlier builds in a file: the next build is faster and chooses the same kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from exactile.engines.tensorrt_library import TensorRTLibrary
from exactile.errors import OptionError
from exactile_converters.tensorrt_engine.storage import write_whole

LARGEST_CACHE_BYTES = 4 << 30


def use_timing_cache(library: TensorRTLibrary, config: Any, path: Path, note: Callable[[str], None]) -> None:
    """Give the builder ``config`` the cache in ``path``, or, with a note, an empty one where it cannot be used.

    Raises OptionError where the file cannot be read.
    """
    data = _read(path)
    if data:
        mark = library.lines.mark()
        cache = config.create_timing_cache(data)
        refused = library.lines.since(mark)  # a cache that cannot be used is logged, and replaced by an empty one
        if cache is not None and not refused and config.set_timing_cache(cache, False):
            return
        reason = refused or library.lines.since(mark) or "it was made by another version, or on another GPU"
        note(f"the timing cache {path} cannot be used, a new one is begun: {reason[:200]}")
    config.set_timing_cache(config.create_timing_cache(b""), True)


def keep_timing_cache(config: Any, path: Path) -> None:
    """Write what the build measured to ``path`` atomically. Raises SinkError."""
    cache = config.get_timing_cache()
    if cache is not None:
        write_whole(path, memoryview(cache.serialize()))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_CACHE_BYTES:
            raise OptionError(f"{path} has {path.stat().st_size} bytes; a timing cache is smaller")
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise OptionError(f"the timing cache {path} cannot be read: {error.strerror}") from error
