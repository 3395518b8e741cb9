"""Whole-slide images, read with OpenSlide."""
