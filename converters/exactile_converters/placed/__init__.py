"""Operators whose taps depend on the place in the whole image, computed on pieces of it."""
