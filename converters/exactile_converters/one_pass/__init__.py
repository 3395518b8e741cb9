"""One pass over the whole image, for images of one size, of a network whose graph does not allow tiles."""
