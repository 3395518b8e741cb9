"""A network whose graph does not allow tiles, for images of one size: one pass over the whole image."""
