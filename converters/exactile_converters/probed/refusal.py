"""Errors that say why runs do not show a network to be local."""

from __future__ import annotations

from exactile.errors import VerificationError


class NotLocalError(VerificationError):
    """Runs show that it is not local, or could not decide; the message says why."""


class TooSlowError(NotLocalError):
    """The time for runs ended before anything was found."""
