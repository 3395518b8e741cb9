"""Obstacles to exact tiling: every one, counted, by its cause instead of its consequences."""
