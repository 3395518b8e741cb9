"""Passes over an image that find statistics of it, before the pass that gives the result."""
