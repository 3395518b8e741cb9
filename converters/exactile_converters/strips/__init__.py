"""Strip graphs: rows in, rows out, with the rows at the seam carried instead of recomputed."""
