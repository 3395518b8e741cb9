"""A bundle's graphs as TensorRT takes them: fixed shapes, and at both ends the bytes that the contract speaks of.

::

    form.py          a model's tile or strip graph becomes a device form
    samples.py       integer samples and labels: bytes at both ends, floating point in between
    batch.py         several tiles at once
    plain.py         what only ONNX Runtime needs is left out
    half.py          half precision where it does not cost the normalisation or the labels
    stored.py        a graph as a message or as files, and its SHA-256
    agreement.py     the device form against the bundle's own graph, in ONNX Runtime on the CPU
"""
