"""Why runs do not show a network to be local."""

from __future__ import annotations

from exactile.errors import VerificationError


class NotLocalError(VerificationError):
    """Runs show that it is not, or nothing was found out; the message says why."""


class TooSlowError(NotLocalError):
    """The time for runs was over before anything was found out."""
