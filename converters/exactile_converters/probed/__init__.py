"""Networks that no rule proves local but runs show to be: their receptive field is measured, not proven."""
