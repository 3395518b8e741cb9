"""Control flow and sequences that are the same for every image: written out, as if the model had none."""
