"""What a machine with a GPU and without a network needs to prove and measure exactile within minutes."""
