"""Pytrees of arrays by name: what they hold, and in what two of them differ."""

from collections.abc import Mapping
from typing import Any

import jax

Shapes = Mapping[str, tuple[int, ...]]


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a pytree, by a name such as `params/head/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): tuple(a.shape) for p, a in leaves}


def differences(given: Shapes, expected: Shapes, most: int = 6) -> str:
    """What differs, in words: `- name (shape)` is given, `+ name (shape)` expected."""
    found = []
    for name in sorted({*given, *expected}):
        if given.get(name) != expected.get(name):
            found += [f"- {name} {given[name]}"] if name in given else []
            found += [f"+ {name} {expected[name]}"] if name in expected else []
    more = f", and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more + " (- given, + expected)"
