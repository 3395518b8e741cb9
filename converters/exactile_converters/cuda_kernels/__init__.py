"""Kernels of ONNX Runtime's CUDA provider, and graphs written so that it accepts them.

::

    symmetric_padding.py   transposed convolutions with equal padding on both sides
    older_opset.py         the opset whose operators have kernels
    write.py               both, on a graph
    doubts.py              what it accepts but may compute differently
    table.py               the kernels of one version of the provider, from kernels.json
    check.py               the nodes of a graph for which it has no kernel
"""
