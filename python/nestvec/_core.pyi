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
_U32: TypeAlias = NDArray[np.uint32]
_U64: TypeAlias = NDArray[np.uint64]

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
    def crc32c(self, data: _U8, seed: int) -> int: ...
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
        allowed: _U64,
        rows: _I32,
        upper: _F32,
        counts: _I64,
    ) -> int: ...
    def sign_bits_f32(self, x: _F32, thresholds: _F32, codes: _U8) -> None: ...
    def sign_bits_f64(self, x: _F64, thresholds: _F64, codes: _U8) -> None: ...
    def pack_words(self, codes: _U8, bounds: _I64, starts: _I64, first: int, words: _U64) -> None: ...
    def count_bits(
        self,
        words: _U64,
        starts: _I64,
        bounds: _I64,
        bits: int,
        queries: _U64,
        what: int,
        first: int,
        last: int,
        out: _I32,
    ) -> None: ...
    def scan_bits(
        self,
        words: _U64,
        starts: _I64,
        bounds: _I64,
        bits: int,
        queries: _U64,
        what: int,
        k: int,
        in_order: bool,
        first: int,
        last: int,
        allowed: _U64,
        histograms: _I32,
        limits: _I32,
        totals: _I64,
        rows: _I32,
        distances: _I32,
        counts: _I64,
    ) -> int: ...
    def list_bits(
        self,
        words: _U64,
        starts: _I64,
        bounds: _I64,
        begin: int,
        bits: int,
        query: _U64,
        rows: _I32,
        distances: _I32,
    ) -> None: ...
    def order_bits(
        self, limits: _I32, rows: _I32, distances: _I32, counts: _I64, places: _I64, best_rows: _I32, best: _I32
    ) -> None: ...
    def pack_signs(
        self,
        x: _F32,
        center: _F64,
        bounds: _I64,
        starts: _I64,
        metric: int,
        first: int,
        words: _U64,
        factors: _U16,
    ) -> None: ...
    def pack_nibbles(
        self,
        x: _F32,
        bounds: _I64,
        starts: _I64,
        codes: _U8,
        nibble_starts: _I64,
        metric: int,
        first: int,
        nibbles: _U8,
        factors: _U16,
    ) -> None: ...
    def code_queries(
        self,
        q: _F64,
        center: _F64,
        bounds: _I64,
        dims: int,
        widest: int,
        metric: int,
        largest: int,
        shift: float,
        codes: _I8,
        digits: _U64,
        shifts: _I64,
        lifts: _F32,
        units: _F64,
        offsets: _F64,
    ) -> None: ...
    def scan_b1(
        self,
        words: _U64,
        starts: _I64,
        bounds: _I64,
        levels: int,
        factors: _U16,
        lifted: bool,
        query: _U64,
        shift: int,
        a: float,
        threshold: float,
        keep: int,
        first: int,
        last: int,
        stride: int,
        slot: int,
        allowed: _U64,
        rows: _I32,
        sums: _I32,
        values: _F32,
        counts: _I64,
    ) -> float: ...
    def scan_i4(
        self,
        nibbles: _U8,
        starts: _I64,
        bounds: _I64,
        levels: int,
        factors: _U16,
        lifted: bool,
        query: _I8,
        shift: int,
        a: float,
        threshold: float,
        keep: int,
        first: int,
        last: int,
        stride: int,
        slot: int,
        allowed: _U64,
        rows: _I32,
        sums: _I32,
        values: _F32,
        counts: _I64,
    ) -> float: ...
    def scan_i8(
        self,
        codes: _U8,
        starts: _I64,
        bounds: _I64,
        levels: int,
        stats: _F32,
        metric: int,
        query: _I8,
        shift: int,
        a: float,
        threshold: float,
        keep: int,
        first: int,
        last: int,
        stride: int,
        slot: int,
        allowed: _U64,
        rows: _I32,
        sums: _I32,
        values: _F32,
        counts: _I64,
    ) -> float: ...
    def list_b1(
        self,
        words: _U64,
        starts: _I64,
        bounds: _I64,
        begin: int,
        levels: int,
        factors: _U16,
        lifted: bool,
        query: _U64,
        shift: int,
        a: float,
        rows: _I32,
        sums: _I32,
        values: _F32,
    ) -> None: ...
    def list_i4(
        self,
        nibbles: _U8,
        starts: _I64,
        bounds: _I64,
        begin: int,
        levels: int,
        factors: _U16,
        lifted: bool,
        query: _I8,
        shift: int,
        a: float,
        rows: _I32,
        sums: _I32,
        values: _F32,
    ) -> None: ...
    def list_i8(
        self,
        codes: _U8,
        starts: _I64,
        bounds: _I64,
        begin: int,
        levels: int,
        stats: _F32,
        metric: int,
        query: _I8,
        shift: int,
        a: float,
        rows: _I32,
        sums: _I32,
        values: _F32,
    ) -> None: ...
    def keep_best(self, rows: _I32, sums: _I32, values: _F32, counts: _I64, keep: int) -> float: ...
    def order_best(self, scores: _F64, ids: _I64, sign: float, values: _F32) -> None: ...
    def simhash(self, x: _F32, gaussians: _F64, panels: _F32, reach: float, k: int, partitions: _U32) -> None: ...
    def encode_bags(
        self,
        x: _F32,
        offsets: _I64,
        partitions: _U32,
        ams: _I32,
        final: _I32,
        k: int,
        mode: int,
        fill: bool,
        scratch: _F32,
        out: _F32,
    ) -> None: ...
    def project_tokens(self, x: _F32, panels: _F32, out: _F32) -> None: ...
    def encode_probes(
        self,
        x: _F32,
        projected: _F32,
        offsets: _I64,
        shift: _F32,
        final: _I32,
        repetitions: int,
        k: int,
        scratch: _F32,
        out: _F32,
    ) -> None: ...
    def transform_rows(self, x: _F64, panels: _F32, out: _F32) -> None: ...
    def scores_f32(self, q: _F64, rows: _F32, dims: int, metric: int, out: _F32) -> None: ...
    def scores_f16(self, q: _F64, rows: _U16, dims: int, metric: int, out: _F32) -> None: ...
    def scores_bf16(self, q: _F64, rows: _U16, dims: int, metric: int, out: _F32) -> None: ...
    def topk_f32(
        self,
        q: _F64,
        rows: _F32,
        dims: int,
        metric: int,
        ids: _I64,
        base: int,
        allowed: _U64,
        best_scores: _F64,
        best_ids: _I64,
    ) -> None: ...
    def topk_f16(
        self,
        q: _F64,
        rows: _U16,
        dims: int,
        metric: int,
        ids: _I64,
        base: int,
        allowed: _U64,
        best_scores: _F64,
        best_ids: _I64,
    ) -> None: ...
    def topk_bf16(
        self,
        q: _F64,
        rows: _U16,
        dims: int,
        metric: int,
        ids: _I64,
        base: int,
        allowed: _U64,
        best_scores: _F64,
        best_ids: _I64,
    ) -> None: ...
    def list_f32(
        self,
        q: _F64,
        rows: _F32,
        dims: int,
        metric: int,
        ids: _I64,
        base: int,
        numbers: _I32,
        best_scores: _F64,
        best_ids: _I64,
    ) -> None: ...
    def list_f16(
        self,
        q: _F64,
        rows: _U16,
        dims: int,
        metric: int,
        ids: _I64,
        base: int,
        numbers: _I32,
        best_scores: _F64,
        best_ids: _I64,
    ) -> None: ...
    def list_bf16(
        self,
        q: _F64,
        rows: _U16,
        dims: int,
        metric: int,
        ids: _I64,
        base: int,
        numbers: _I32,
        best_scores: _F64,
        best_ids: _I64,
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
    def maxsim_f32(
        self,
        q: _F64,
        q_offsets: _I64,
        tokens: _F32,
        scales: _F32,
        offsets: _I64,
        docs: _I64,
        scratch: _U8,
        out: _F64,
    ) -> int: ...
    def maxsim_f16(
        self,
        q: _F64,
        q_offsets: _I64,
        tokens: _U16,
        scales: _F32,
        offsets: _I64,
        docs: _I64,
        scratch: _U8,
        out: _F64,
    ) -> int: ...
    def maxsim_bf16(
        self,
        q: _F64,
        q_offsets: _I64,
        tokens: _U16,
        scales: _F32,
        offsets: _I64,
        docs: _I64,
        scratch: _U8,
        out: _F64,
    ) -> int: ...
    def maxsim_i8(
        self,
        q: _F64,
        q_offsets: _I64,
        tokens: _I8,
        scales: _F32,
        offsets: _I64,
        docs: _I64,
        scratch: _U8,
        out: _F64,
    ) -> int: ...
    def pack_bags(self, x: _F32, offsets: _I64, codes: _I8, scales: _F32, sums: _I32, bounds: _F32) -> None: ...
    def scan_bags(
        self,
        codes: _I8,
        scales: _F32,
        sums: _I32,
        offsets: _I64,
        bounds: _F32,
        query_codes: _U8,
        query_steps: _F32,
        query_panels: _I64,
        query_bounds: _F32,
        first: int,
        last: int,
        allowed: _U8,
        out: _F32,
    ) -> None: ...

baseline: Kernels

# avx2, avx512 and amx on x86-64, dotprod on arm64: present where the machine has them
def __getattr__(name: str) -> Kernels: ...
