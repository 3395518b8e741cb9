"""Build TensorRT and TensorRT-RTX engines for a bundle.

::

    settings.py      options of a build
    capability.py    for which GPUs
    plan.py          a device form becomes a serialised engine
    monitor.py       progress of a build, and cancelling it
    timing_cache.py  what TensorRT measured in earlier builds
    storage.py       engines in the bundle's folder: find, write atomically, replace
    engines.py       all engines that were asked for: form, check, build, write
"""
