"""The machine that runs: its memory, its CPU, and the folder for what is kept from run to run."""
