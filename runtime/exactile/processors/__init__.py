"""What a session computes on: the CPU, or GPUs."""
