"""Turn trained networks into models that exactile can run."""
