"""Measure installed size, import time, and time to the first labels.

::

    size.py       megabytes that an installation adds to Python, read from what is installed
    __main__.py   import times and times to the first labels, in turn
"""
