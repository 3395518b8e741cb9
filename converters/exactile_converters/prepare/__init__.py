"""Make a graph that was read ready for the walk: flat, clean, sorted, its input and output found."""
