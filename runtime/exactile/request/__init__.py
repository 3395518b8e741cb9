"""The request of a command or a call: the model, how it is read, and the messages meanwhile."""
