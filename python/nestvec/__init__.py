"""Exact nested similarity search: Matryoshka vectors, binary codes and multi-vector documents."""

from __future__ import annotations

from .backends import use
from .binary import BinaryIndex
from .bits import (
    as_ubinary,
    hamming,
    hamming_topk,
    intersection,
    intersection_topk,
    jaccard,
    jaccard_topk,
    pack_bits,
)
from .files import load
from .filters import Bitmap
from .index import NestedIndex
from .maxsim import carve, maxsim, maxsim_topk
from .multivector import MultiVectorIndex
from .muvera import FixedDimensionalEncoder
from .plan import Plan, Stage
from .profiles import Profile
from .profiling import profile
from .report import show_config
from .stateless import prefix_scores, prefix_topk
from .storage import FileError
from .transform import Transform, fit_rotation

__all__ = [
    "BinaryIndex",
    "Bitmap",
    "FileError",
    "FixedDimensionalEncoder",
    "MultiVectorIndex",
    "NestedIndex",
    "Plan",
    "Profile",
    "Stage",
    "Transform",
    "__version__",
    "as_ubinary",
    "carve",
    "fit_rotation",
    "hamming",
    "hamming_topk",
    "intersection",
    "intersection_topk",
    "jaccard",
    "jaccard_topk",
    "load",
    "maxsim",
    "maxsim_topk",
    "pack_bits",
    "prefix_scores",
    "prefix_topk",
    "profile",
    "show_config",
    "use",
]


def __getattr__(name: str) -> str:
    if name == "__version__":  # looked up when asked for: reading package metadata costs more than the import
        from importlib.metadata import version

        return version("nestvec")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
