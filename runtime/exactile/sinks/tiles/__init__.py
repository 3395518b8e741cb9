"""Sinks that store tiles: their grid, assembly from boxes, encoding, pyramids."""
