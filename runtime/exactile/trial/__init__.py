"""Trials of plans on the machine: each runs the first steps of the image, and the fastest is taken.

::

    trial  -->  prefix  -->  pace
           -->  candidates
"""
