"""Small pictures of large images and results: a thumbnail, a preview."""
