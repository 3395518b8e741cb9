"""Runs within a tolerance, if requested: tiles with a smaller halo, whose error is measured and reported.

::

    tolerance.py    the requested bound on the error, of scores or of labels
    halos.py        a geometry with a smaller halo than the exact one
    narrow.py       a plan of tiles with a smaller halo, and the exact tile for each of its zones
    difference.py   how far results are from the exact ones
    tile_runs.py    single tiles of an image, computed apart from a run
    compared.py     tiles with a smaller halo beside the exact ones
    curve.py        error against halo, as measured; curve_file.py keeps it beside a bundle
    measure.py      measures a curve on images
    narrowing.py    chooses the halo of a run, and checks it on the image
    report.py       what a run reports about it
"""
