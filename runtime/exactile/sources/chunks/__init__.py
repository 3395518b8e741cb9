"""Sources whose pixels are stored in chunks: the grid, the order of reading, the cache, the threads that decode."""
