"""The exit statuses of all commands."""

from __future__ import annotations

from exactile.errors import CancelledError, EngineError, OptionError, SinkError

DONE = 0
CHECK_FAILED = 1
OUTPUT_CLOSED = 1
INTERNAL_ERROR = 70

MEANINGS = {
    DONE: "done, and what was checked holds",
    CHECK_FAILED: "what `verify`, `doctor` or `info` checked does not hold, or standard output was closed",
    OptionError.exit_status: "an option, model or image cannot be used, or the output exists",
    SinkError.exit_status: "the output cannot be written",
    EngineError.exit_status: "the engine, the GPU or the cluster failed",
    INTERNAL_ERROR: "a bug in exactile",
    CancelledError.exit_status: "stopped by Ctrl-C or SIGTERM",
}
"""The table of docs/usage.md, and the epilog of ``exactile --help``."""


def epilog() -> str:
    """Return one line of Markdown with all statuses."""
    return f"**Exit status**: {'; '.join(f'{status} {meaning}' for status, meaning in MEANINGS.items())}."
