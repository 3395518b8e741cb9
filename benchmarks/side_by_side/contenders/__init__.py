"""One file each. All but ``exactile_`` run without exactile, with what the peer's documentation recommends.

``in_memory.py`` and ``predictors.py`` are what such scripts have in common: read the TIFF, run a window, write a TIFF.
"""
