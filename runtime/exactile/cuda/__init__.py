"""GPUs: devices, streams, events, pinned and device memory, on a binding of the CUDA driver.

::

    protocol.py         what the rest of the runtime knows of a GPU
    status.py           a driver's status becomes one of our errors
    pycuda_driver.py    on pycuda
    bindings_driver.py  on cuda.bindings, which can also capture a stream's work
    choice.py           which binding, and what ``--device`` means

Nothing else imports pycuda or cuda.bindings.
"""
