"""Pure planning: which boxes to read, infer and write. No I/O, no engine."""
