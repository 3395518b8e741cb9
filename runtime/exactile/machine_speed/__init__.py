"""The speed of this machine, by which times of plans are predicted: the usual one, or measured."""
