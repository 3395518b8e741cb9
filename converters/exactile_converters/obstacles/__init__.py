"""What stands in the way of exact tiles: every obstacle, counted, and the cause rather than what follows from it."""
