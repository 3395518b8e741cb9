"""Proof of a network's geometry that does not use the rules it was derived with."""

from exactile_converters.verify.verification import Verification, verify

__all__ = ["Verification", "verify"]
