"""Measure the time until a network in an ONNX file runs: at its first run, later, and as a bundle.

::

    stages.py     one run, in parts, in its own process
    __main__.py   whole processes and their parts, in turn
"""
