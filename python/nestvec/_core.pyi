"""Compiled kernels, one submodule for each instruction set that was built and that this machine supports.

What each kernel computes is written in `nestvec.kernels`, where arguments have the same names and order.
"""

from typing import Protocol, TypeAlias, type_check_only

import numpy as np
from numpy.typing import NDArray

_F32: TypeAlias = NDArray[np.float32]
_F64: TypeAlias = NDArray[np.float64]
_I8: TypeAlias = NDArray[np.int8]
_I32: TypeAlias = NDArray[np.int32]
_I64: TypeAlias = NDArray[np.int64]
_U8: TypeAlias = NDArray[np.uint8]
_U16: TypeAlias = NDArray[np.uint16]

built: str  # names of all variants built, separated by blanks, also of those this machine lacks
compiler: str

@type_check_only
class Kernels(Protocol):
    """Every kernel; arrays of another type are a TypeError, never a copy."""

    def widen_f16(self, source: _U16, target: _F32) -> None: ...
    def widen_bf16(self, source: _U16, target: _F32) -> None: ...
    def narrow_f16(self, source: _F32, target: _U16) -> None: ...
    def narrow_bf16(self, source: _F32, target: _U16) -> None: ...
    def first_nonfinite(self, values: _F32) -> int: ...
    def sum_bytes(self, values: _U8) -> int: ...
    def pack_rows(
        self, x: _F32, bounds: _I64, starts: _I64, first: int, codes: _U8, stats: _F32, blocks: _F32
    ) -> None: ...
    def pack_queries(
        self, q: _F32, bounds: _I64, metric: int, codes: _I8, sums: _I32, stats: _F32, multiply: _F64, offset: _F64
    ) -> None: ...
    def scan(
        self,
        codes: _U8,
        starts: _I64,
        bounds: _I64,
        stats: _F32,
        blocks: _F32,
        query_codes: _I8,
        query_sums: _I32,
        query_stats: _F32,
        thresholds: _F32,
        metric: int,
        check: int,
        first: int,
        last: int,
        rows: _I32,
        upper: _F32,
        counts: _I64,
    ) -> int: ...
    def scores_f32(self, q: _F64, rows: _F32, dims: int, metric: int, out: _F32) -> None: ...
    def scores_f16(self, q: _F64, rows: _U16, dims: int, metric: int, out: _F32) -> None: ...
    def scores_bf16(self, q: _F64, rows: _U16, dims: int, metric: int, out: _F32) -> None: ...
    def topk_f32(
        self, q: _F64, rows: _F32, dims: int, metric: int, ids: _I64, base: int, best_scores: _F64, best_ids: _I64
    ) -> None: ...
    def topk_f16(
        self, q: _F64, rows: _U16, dims: int, metric: int, ids: _I64, base: int, best_scores: _F64, best_ids: _I64
    ) -> None: ...
    def topk_bf16(
        self, q: _F64, rows: _U16, dims: int, metric: int, ids: _I64, base: int, best_scores: _F64, best_ids: _I64
    ) -> None: ...
    def rescore_f32(
        self,
        q: _F64,
        rows: _F32,
        dims: int,
        metric: int,
        ids: _I64,
        base: int,
        take: int,
        multiply: _F64,
        offset: _F64,
        thresholds: _F32,
        candidates: _I32,
        upper: _F32,
        counts: _I64,
        best_scores: _F64,
        best_ids: _I64,
    ) -> int: ...
    def rescore_f16(
        self,
        q: _F64,
        rows: _U16,
        dims: int,
        metric: int,
        ids: _I64,
        base: int,
        take: int,
        multiply: _F64,
        offset: _F64,
        thresholds: _F32,
        candidates: _I32,
        upper: _F32,
        counts: _I64,
        best_scores: _F64,
        best_ids: _I64,
    ) -> int: ...
    def rescore_bf16(
        self,
        q: _F64,
        rows: _U16,
        dims: int,
        metric: int,
        ids: _I64,
        base: int,
        take: int,
        multiply: _F64,
        offset: _F64,
        thresholds: _F32,
        candidates: _I32,
        upper: _F32,
        counts: _I64,
        best_scores: _F64,
        best_ids: _I64,
    ) -> int: ...

baseline: Kernels

# avx2, avx512 and amx on x86-64, dotprod on arm64: present where the machine has them
def __getattr__(name: str) -> Kernels: ...
