"""What a command or a call asks for: the model, how it is read, and what is said meanwhile."""
