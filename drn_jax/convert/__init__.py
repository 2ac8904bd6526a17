"""Published weights in and out.

`names`  spells the stage table in each of PyTorch's codebases
`torch`  `load` and `dump` of PyTorch's state dictionaries
`caffe`  `load` of Caffe's layers; `caffemodel` reads its files
`rules`  what both are made of
`python -m drn_jax.convert` does all of it for files.
"""
