"""What the files of vendors and tools declare about a model in addition to its network."""
