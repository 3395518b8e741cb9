"""Prepare a graph for the walk: flat, clean and sorted, with its input and output found."""
