"""What ONNX Runtime's CUDA provider has kernels for, and graphs written so that it takes them.

::

    symmetric_padding.py   transposed convolutions that pad both sides alike
    older_opset.py         the opset whose operators have kernels
    write.py               both, on a graph
    doubts.py              what it takes and may compute otherwise
    table.py               the kernels of one version of the provider, from kernels.json
    check.py               the nodes of a graph that it has no kernel for
"""
