"""Check whether this machine can run exactile, and computes what it should. For ``exactile doctor``.

::

    finding.py        what one check found
    machine.py        exactile, Python, system, CPU, memory
    cache.py          the user's cache folder
    packages.py       the packages that exactile reads and computes with
    driver.py         the NVIDIA driver, its bindings, the GPUs
    providers.py      ONNX Runtime: what it was built with, and what a session gets
    tensorrt.py       TensorRT and TensorRT-RTX: importable or not
    bundles/          two small networks with a sample and its result, made by models/doctor_bundles.py
    small_network.py  running them
    on_cpu.py         ... on the CPU, compared with recorded results
    on_gpu.py         ... on a GPU, with each engine, compared with the CPU
    overlap.py        how much of the time of copies was hidden, from events
    converter.py      building small engines, if the converter is installed
    bundle.py         a user's bundle on this machine
    checks.py         checks by name
    child.py          runs one check in its own process
    isolation.py      starts that process, and reports its end
    examination.py    which checks, in order
    report.py         all findings, and the verdict
    privacy.py        removes the user's names and folders from a report
"""
