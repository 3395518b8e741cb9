"""An image that arrives in rows: what has come is computed strip by strip.

::

    opening  -->  plan  -->  stream
"""
