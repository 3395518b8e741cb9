"""Whole-slide images in DICOM files, read with wsidicom."""
