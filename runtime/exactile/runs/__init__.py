"""Runs of images.

::

    opened_model   a model on its processor, with the planners of its runs
    ways           the forms in which a network that takes statistics of the whole image can run
    normalizers    offset and scale of an image, found within the planned memory
    image_run      one image; run_record describes it, so that it can be resumed
    batch          many images
    summary        what a run reports; summary_notes what is worth a sentence
"""
