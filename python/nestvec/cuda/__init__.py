"""Indexes on a GPU: `index.to("cuda")` copies one there, and searches it with the kernels of the extension ``_cuda``.

The extension is optional (``-C cmake.define.NESTVEC_CUDA=ON``). Nothing here is imported before it is asked for, and
nothing moves to a GPU by itself.
"""

from __future__ import annotations

from .device import Device, DeviceArray, available, reason
from .stateless import prefix_scores, prefix_topk

__all__ = ["Device", "DeviceArray", "available", "prefix_scores", "prefix_topk", "reason"]
