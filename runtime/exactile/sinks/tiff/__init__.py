"""TIFF files: tiled, with pyramids."""
