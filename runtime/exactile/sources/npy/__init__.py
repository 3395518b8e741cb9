"""Arrays in .npy files."""
