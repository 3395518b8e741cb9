"""GPUs: devices, streams, events, pinned and device memory, on a binding of the CUDA driver.

::

    protocol.py         what the rest of the runtime knows of a GPU
    status.py           a driver's status becomes one of our errors
    current.py          which context is current in which thread
    scope.py            what is open on a GPU, and how all of it is closed
    sizes.py            sizes of buffers and copies, checked before the driver sees them
    pycuda_driver.py    on pycuda; also pycuda_memory.py and pycuda_streams.py
    bindings_driver.py  on cuda.bindings; also bindings_memory.py, bindings_streams.py and
    bindings_graphs.py  for it can also capture a stream's work
    ordinals.py         what ``--device`` means
    choice.py           which binding, and which GPUs

Nothing else imports pycuda or cuda.bindings.
"""
