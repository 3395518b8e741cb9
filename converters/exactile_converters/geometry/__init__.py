"""Derive from a network's graph how it can be tiled."""
