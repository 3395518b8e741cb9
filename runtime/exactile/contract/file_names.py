"""Names of the files of a bundle that others refer to."""

CONTRACT_NAME = "contract.json"
WEIGHTS_NAME = "weights.bin"
