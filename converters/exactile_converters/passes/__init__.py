"""Networks with statistics of the whole image: passes over the image compute them before the pass of the result."""
