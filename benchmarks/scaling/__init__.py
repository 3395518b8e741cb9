"""How time and memory grow: with the image, with the network's halo, with threads.

::

    image_size.py   one network, larger and larger images, beside one pass and MONAI
    large_image.py  images of gigapixels within a budget; what remains when inference costs nothing
    free_engine.py  the process that runs such an image
    many_cores.py   what is serial in that, and the ceiling that it is on any number of cores
    serial_meter.py seconds of the interpreter's lock and of stages that are one thread
    halo.py         networks that look farther and farther: tiles against strips
    threads.py      one thread and all
    __main__.py     tables and pictures
"""
