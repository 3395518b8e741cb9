"""Networks that no rule proves local, and runs show to be: how far they look, found by running them. Not proven."""
