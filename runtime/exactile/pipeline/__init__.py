"""Read, infer, crop, write: stages that overlap, in bounded memory."""
