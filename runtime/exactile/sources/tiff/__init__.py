"""TIFF, OME-TIFF, GeoTIFF and SVS files."""
