"""How fast a GPU is with this pipeline, where the time goes, and what others need for the same."""
