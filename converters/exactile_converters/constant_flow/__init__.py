"""Unroll control flow and sequences that are the same for every image."""
