"""Keep deployed models and verdicts of ONNX files from run to run, in the user's cache folder.

::

    rules.py         the code and the packages that what is kept depends on
    model_file.py    a deployed model in one file
    models.py        the files of many, the least recently used removed first
"""
