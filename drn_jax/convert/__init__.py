"""Weights of the published networks in and out: `torch.load`, `torch.dump`.

`names` spells the stage table in each codebase's parameter names.
"""
