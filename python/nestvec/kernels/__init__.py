"""The table of kernels: each one a short loop that is its specification, its Numba version and the test oracle.

Contract, the same on every backend:

1. Integer sums are exact; no step saturates.
2. Float sums are float64: rows and queries widen exactly, sixteen lanes (lane l takes dims l, l + 16, ...) fold
   16-8-4-2-1. Products of float32 values are exact in float64, so the bits do not depend on fused multiply-add.
3. Upper bounds are float32 with one rounding per written operation, and err upwards only.
4. Results order by score, then by smaller id.

Kernels check nothing: arguments have passed `nestvec.arrays`. Outputs are written in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .bits import count_bits, list_bits, order_bits, pack_words, scan_bits, sign_bits
from .checksum import crc32c
from .codes import pack_nibbles, pack_signs
from .coding import code_queries
from .convert import first_nonfinite, narrow_bf16, narrow_f16, sum_bytes, widen_bf16, widen_f16
from .estimate import list_b1, list_i4, list_i8, scan_b1, scan_i4, scan_i8
from .exact import (
    list_bf16,
    list_f16,
    list_f32,
    rescore_bf16,
    rescore_f16,
    rescore_f32,
    scores_bf16,
    scores_f16,
    scores_f32,
    topk_bf16,
    topk_f16,
    topk_f32,
)
from .fde import encode_bags, simhash
from .fitted import encode_probes, project_tokens
from .maxsim import maxsim_bf16, maxsim_f16, maxsim_f32, maxsim_i8, pack_bags, scan_bags
from .pack import pack_queries, pack_rows
from .scan import scan
from .select import keep_best, order_best
from .transform import transform_rows

TABLE: dict[str, Callable[..., Any]] = {
    "widen_f16": widen_f16,
    "widen_bf16": widen_bf16,
    "narrow_f16": narrow_f16,
    "narrow_bf16": narrow_bf16,
    "first_nonfinite": first_nonfinite,
    "sum_bytes": sum_bytes,
    "crc32c": crc32c,
    "pack_rows": pack_rows,
    "pack_queries": pack_queries,
    "scan": scan,
    "sign_bits_f32": sign_bits,
    "sign_bits_f64": sign_bits,
    "pack_words": pack_words,
    "count_bits": count_bits,
    "scan_bits": scan_bits,
    "list_bits": list_bits,
    "order_bits": order_bits,
    "pack_signs": pack_signs,
    "pack_nibbles": pack_nibbles,
    "code_queries": code_queries,
    "scan_b1": scan_b1,
    "scan_i4": scan_i4,
    "scan_i8": scan_i8,
    "list_b1": list_b1,
    "list_i4": list_i4,
    "list_i8": list_i8,
    "keep_best": keep_best,
    "order_best": order_best,
    "simhash": simhash,
    "encode_bags": encode_bags,
    "project_tokens": project_tokens,
    "encode_probes": encode_probes,
    "transform_rows": transform_rows,
    "scores_f32": scores_f32,
    "scores_f16": scores_f16,
    "scores_bf16": scores_bf16,
    "topk_f32": topk_f32,
    "topk_f16": topk_f16,
    "topk_bf16": topk_bf16,
    "list_f32": list_f32,
    "list_f16": list_f16,
    "list_bf16": list_bf16,
    "rescore_f32": rescore_f32,
    "rescore_f16": rescore_f16,
    "rescore_bf16": rescore_bf16,
    "maxsim_f32": maxsim_f32,
    "maxsim_f16": maxsim_f16,
    "maxsim_bf16": maxsim_bf16,
    "maxsim_i8": maxsim_i8,
    "pack_bags": pack_bags,
    "scan_bags": scan_bags,
}
