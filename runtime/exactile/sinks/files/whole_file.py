"""Write small files that are complete or not there."""

from __future__ import annotations

from pathlib import Path

from exactile.sinks.failures import os_errors_as_sink_errors


def replace_file(path: Path, content: bytes | bytearray) -> None:
    """Write ``content`` beside ``path`` and rename it. Raises SinkError; an existing file then stays."""
    new = path.with_name(f".{path.name}.new")
    with os_errors_as_sink_errors(path):
        try:
            new.write_bytes(content)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
