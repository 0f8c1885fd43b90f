"""The model in a process of its own, with its inputs and outputs in shared memory."""
