"""Published weights in and out.

`names`  spells the stage table in each codebase's parameter names
`torch`  `load` and `dump` of PyTorch's state dictionaries
`python -m drn_jax.convert` does both for files.
"""
