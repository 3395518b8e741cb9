"""Turn errors into one clear message on stderr and an exit status; never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from exactile.cli.exit_status import INTERNAL_ERROR, OUTPUT_CLOSED
from exactile.errors import CancelledError, ExactileError


@contextmanager
def reported() -> Iterator[None]:
    """Run a command; turn exceptions into a message and ``typer.Exit``. SIGTERM stops like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except ExactileError as error:
        _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        _fail("stopped; no output was written", CancelledError.exit_status)
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        raise typer.Exit(OUTPUT_CLOSED) from None
    except Exception as error:
        if os.environ.get("EXACTILE_DEBUG"):
            raise
        _fail(
            f"internal error: {type(error).__name__}: {error}\n"
            "This is a bug in exactile. Set EXACTILE_DEBUG=1 to see where it comes from, and please report it.",
            INTERNAL_ERROR,
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, status: int) -> None:
    sys.stderr.write(f"error: {message}\n")
    raise typer.Exit(status) from None
