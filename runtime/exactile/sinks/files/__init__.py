"""Output files: written beside their name, renamed when complete."""
