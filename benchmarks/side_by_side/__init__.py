"""One network, one image: exactile beside what users pick today. ``python -m benchmarks.side_by_side``

::

    cases.py         which networks, image sizes and contenders, how many rounds
    subject.py       the network as files for all of them, and the image
    contenders/      one file each: how it is set up, by its own documentation
    task.py          what a contender is asked, and what it answers
    asking.py        starts a contender in its own process
    worker.py        runs one, in that process
    comparison.py    labels that differ, scores, seams
    __main__.py      turns, tables, pictures

Everyone gets the same weights and the same tiled deflate TIFF, and is set up as its documentation says. The time runs
from opening the image to closing the label TIFF; a contender's process imports its libraries and opens the network
before, and those seconds are in separate columns.
"""
