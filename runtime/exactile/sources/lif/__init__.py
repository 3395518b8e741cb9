"""Leica's LIF files, read with liffile."""
