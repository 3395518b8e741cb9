"""A network, what its file declares in addition, and how images are normalised for it."""
