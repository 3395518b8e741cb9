"""Statistics of the samples of a whole image, by which models normalise it: in bounded memory, exact.

::

    measure  -->  tallies
"""
