"""Runs within a tolerance, if requested: tiles with a smaller halo, whose error is measured and reported.

::

    halos.py        a geometry with a smaller halo than the exact one
    narrow.py       a plan of tiles with a smaller halo, and the exact tile for each of its zones
    difference.py   how far results are from the exact ones
    tile_runs.py    single tiles of an image, computed apart from a run
    compared.py     tiles with a smaller halo beside the exact ones
    curve_file.py   error against halo, as it was measured, in a file beside a bundle
    measure.py      measures a curve on images
    narrowing.py    chooses the halo of a run, and checks it on the image
    report.py       what a run reports about it
"""
