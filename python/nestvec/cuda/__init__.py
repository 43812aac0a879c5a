"""Indexes on a GPU: `index.to("cuda")` copies one there, and searches it with the kernels of the extension ``_cuda``.

The extension is optional (``-C cmake.define.NESTVEC_CUDA=ON``). Nothing here is imported before it is asked for, and
nothing moves to a GPU by itself. Queries of the host have results of the host; queries on the device (torch, cupy,
jax, or anything with DLPack or ``__cuda_array_interface__``) have results on the device, of the same library, and only
`check=True` waits for them. Results are those of the CPU, bit for bit, where their docstrings say nothing else.

``available()`` names the devices that can be used; ``reason()`` says why there is none.
"""

from __future__ import annotations

import importlib
from typing import Any

from .device import Device, DeviceArray, available, reason

PLACES = {
    "CudaNestedIndex": "dense",
    "CudaBinaryIndex": "binary",
    "CudaMultiVectorIndex": "multivector",
    "hamming_topk": "binary",
    "Documents": "bags",
    "maxsim": "late",
    "maxsim_topk": "late",
    "prefix_scores": "stateless",
    "prefix_topk": "stateless",
}  # by module, imported when asked for

__all__ = ["Device", "DeviceArray", "available", "reason", *PLACES]


def __getattr__(name: str) -> Any:
    if name in PLACES:
        return getattr(importlib.import_module(f".{PLACES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
