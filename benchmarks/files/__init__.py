"""Reading images and writing labels, beside the libraries that users read and write with.

::

    pictures.py   what is read and written
    readers.py    a sweep over an image in boxes, by each library
    writers.py    a label map written box by box, or by one call
    __main__.py   turns and tables
"""
