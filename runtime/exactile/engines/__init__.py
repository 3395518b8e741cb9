"""Engines: what runs the network."""
