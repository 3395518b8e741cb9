"""Verify a network's geometry without the rules that derived it."""

from exactile_converters.verify.in_passes import verify
from exactile_converters.verify.plain_data import verification_object
from exactile_converters.verify.report import PAGE, check_directory, write_report
from exactile_converters.verify.verification import Verification

__all__ = ["PAGE", "Verification", "check_directory", "verification_object", "verify", "write_report"]
