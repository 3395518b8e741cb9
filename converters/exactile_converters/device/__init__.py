"""A bundle's graphs as TensorRT takes them: fixed shapes, and at both ends the contract's bytes.

::

    form.py          a model's tile or strip graph becomes a device form
    samples.py       integer samples and labels: bytes at both ends, floating point in between
    batch.py         several tiles at once
    plain.py         remove what only ONNX Runtime needs
    half.py          half precision where it does not affect the normalisation or the labels
    stored.py        a graph as a message or as files, and its SHA-256
    agreement.py     compare the device form with the bundle's own graph, in ONNX Runtime on the CPU
"""
