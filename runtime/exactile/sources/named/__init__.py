"""What ND2 and LIF share: files that hold several named images."""
