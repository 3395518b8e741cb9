"""Networks that take statistics of the whole image: found in passes over it, before the pass of the result."""
