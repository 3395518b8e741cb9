"""Hostile and broken input, made by recipe: TIFF images, pictures, CZI files, contracts of bundles, ONNX models.

::

    recipe.py                  a case by name: what it starts from, how it is damaged, the seed of the damage
    tiff_cases.py              recipes for images      (tiff_bases.py, tiff_directory.py)
    picture_cases.py           ... for PNG, JPEG, BMP, WebP, JPEG 2000, JPEG XL   (picture_bases.py)
    czi_cases.py               ... for CZI files          (czi_bases.py)
    contract_cases.py          ... for contract.json
    onnx_cases.py              ... for networks
    tiff_verdict.py, ...       what exactile makes of a case, judged by another library
    bounds.py                  what a case may take
    trial.py                   one case, from its recipe to its outcome
    harness.py                 children that try cases, killed where one breaks out of its bounds
    __main__.py                ``python -m fuzz --kind tiff --cases 1000 --seed 0``
"""
