"""Speeds of a network's tiles and strips on this machine, measured beforehand."""
