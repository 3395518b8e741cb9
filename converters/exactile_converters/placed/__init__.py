"""Operators whose taps depend on the position in the whole image, computed on pieces of it."""
