"""What it takes until a network that is given as an ONNX file runs: at its first run, later, and as a bundle.

::

    stages.py     one run, in parts, in a process of its own
    __main__.py   whole processes and their parts, in turn
"""
