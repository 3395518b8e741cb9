"""A deployed model as a folder: ``contract.json``, ONNX graphs, shared weights, a test image with its result.

::

    contract_file.py   what contract.json may say (and its JSON Schema), in the parts
    network_parts.py   ... that say what the network takes and gives
    strip_parts.py     ... how it takes an image in strips
    pass_parts.py      ... the passes that find statistics of the whole image
    accuracy_parts.py  ... how far results of fewer bits are from those of FP32
    contract_values.py numbers, names and types within their bounds
    translation.py     between contract.json and the contract that the runtime works with
    opening.py         a folder becomes a Bundle, or a refusal that says why
    engine_file.py     what the file beside a built engine may say
    engine_tensors.py  what goes into and comes out of an engine, by the contract
    engine_files.py    which of the engines in the folder fit, and why others do not

Written by ``exactile convert``; opened without onnx and without torch.
"""
