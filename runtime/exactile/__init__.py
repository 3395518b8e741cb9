"""Exact segmentation of images larger than memory.

Shape letters used throughout: H, W image or tile rows and columns; C channels; N batch (always 1 here).
Coordinates are (y, x), boxes half-open.
"""

__version__ = "0.1.0"
