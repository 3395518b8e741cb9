"""TensorRT and TensorRT-RTX engines beside a bundle.

::

    settings.py      what may be asked of a build
    capability.py    for which GPUs
    plan.py          a device form becomes a serialised engine
    monitor.py       how far a build is, and stopping it
    timing_cache.py  what TensorRT measured in earlier builds
    storage.py       engines in the bundle's folder: which fits, writing one in whole, replacing another
    engines.py       all engines that were asked for: form, check, build, write
"""
