"""Check that runs stay within ``--memory``: combinations of everything that takes memory, each in a fresh process.

::

    inputs.py     one image in every form that is read, and the networks
    cases.py      which combinations: every pair of choices, rather than all of them
    launch.py     starts one command from a small process, and reports the kernel's figure for its peak
    streamed.py   a run whose rows are pushed, for the same launcher
    trial.py      one combination: the least budget that is accepted, and runs within it and within more
    __main__.py   the table
"""
