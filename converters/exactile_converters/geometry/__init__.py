"""What a network's graph says about how it can be tiled."""
