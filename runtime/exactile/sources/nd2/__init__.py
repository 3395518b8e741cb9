"""Nikon's ND2 files, read with nd2."""
