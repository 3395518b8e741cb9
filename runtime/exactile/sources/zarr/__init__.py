"""Zarr arrays and groups, local and at addresses."""
