"""What is tortured: kinds of indexes, how they change and what they are asked. A new call is one line here."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import nestvec as nv
from nestvec import Stage
from nestvec.files import to_bytes

Call = Callable[[Any], Any]

D, LEVELS, ROWS = 40, (16,), 2600
MAPPED = 6  # steps before an index is mapped from a file
BITS = 200
ENDS = [10, 20, 64, 70, 129, 500, 1000, 1030, 1500, 1501, 2100, ROWS]  # after each `add`

_rng = np.random.default_rng(0)
X = _rng.integers(-3, 4, (ROWS, D)).astype(np.float32)  # whole numbers: many ties, which only ids decide
Q = _rng.integers(-3, 4, (20, D)).astype(np.float32)
IDS = _rng.permutation(10 * ROWS)[:ROWS].astype(np.int64)
CODES = _rng.integers(0, 256, (ROWS, BITS // 8), np.uint8)
TOKENS = _rng.standard_normal((3 * ROWS, 16)).astype(np.float32)
DOCS = [TOKENS[3 * at : 3 * at + at % 6] for at in range(ROWS)]
QUERIES = [TOKENS[7 * at : 7 * at + 4] + np.float32(0.1) for at in range(6)]
TURNED = nv.Transform(-np.eye(D)[_rng.permutation(D)])  # which keeps ties
NAMES = [f"id {at}" for at in range(ROWS)]
ENCODER = nv.FixedDimensionalEncoder(16, num_repetitions=3, num_simhash_projections=2, projection_dim=4)


class Subject(NamedTuple):
    """An index of one kind.

    `make` gives an empty one, each of `steps` changes it, `calls` ask it. Asked after the same steps, a call gives the
    same answer whenever and wherever it runs. `more` adds one row at any time.
    """

    make: Callable[[], Any]
    steps: list[Call]
    more: Call
    calls: dict[str, Call]

    def filled(self, steps: int | None = None) -> Any:
        """An index after its first steps, by default all."""
        index = self.make()
        for step in self.steps[:steps]:
            step(index)
        return index


def _changes(names: Any, add: Callable[[Any, Any], Any], update: Callable[[Any, Any], Any]) -> list[Call]:
    """Rows are added, and later some removed and updated, the index compacted, and the rest added."""
    cuts = list(zip([0, *ENDS[:-1]], ENDS, strict=True))
    adds: list[Call] = [lambda index, some=slice(*cut): add(index, some) for cut in cuts]
    return [
        *adds[:5],
        lambda index: index.remove(names[5:100:7]),
        *adds[5:8],
        lambda index: update(index, slice(600, 700)),
        lambda index: index.remove(names[300:900:2], missing="ignore"),
        lambda index: index.compact(threads=2),
        *adds[8:],
        lambda index: update(index, slice(1, 5)),
    ]


RAW = [Stage("b1", keep=40), Stage("raw")]
BIT_PLAN = [Stage("b1", dims=70, keep=40), Stage("b1", dims=128, keep=20), Stage("b1")]
SOME = np.arange(10 * ROWS) % 3 > 0  # ids that a filter allows
FEW = [[9, 3, 77, 500], None, range(1, 900, 5)]  # filters of three queries


def mapped() -> Any:
    """What the subject "vectors" has after its first steps, in a file that has no name any more."""
    with tempfile.TemporaryDirectory() as folder:
        SUBJECTS["vectors"].filled(MAPPED).save(f"{folder}/index.nv")
        return nv.load(f"{folder}/index.nv", mmap=True)


SUBJECTS = {
    "vectors": Subject(
        lambda: nv.NestedIndex(D, LEVELS, codes=("b1", "i4")),
        _changes(
            range(ROWS),
            lambda index, some: index.add(X[some], threads=2),
            lambda index, some: index.update(np.arange(ROWS)[some], X[some] + 1),
        ),
        lambda index: index.add(X[:1]),
        {
            "exact": lambda index: index.search(Q[:1], 15, threads=1),
            "exact batch": lambda index: index.search(Q, 15, dims=16, threads=2),
            "filtered": lambda index: index.search(Q[:3], 15, filter=FEW, threads=2),
            "filtered batch": lambda index: index.search(Q, 15, filter=SOME),
            "prefix": lambda index: index.search(Q[:1], 15, dims=23, threads=2),
            "prefix batch": lambda index: index.search(Q, 15, dims=23, threads=1),
            "range": lambda index: index.range_search(Q[:3], 60.0, dims=16, threads=2),
            "plan": lambda index: index.search(Q[:3], 5, plan=RAW, threads=2),
            "filtered plan": lambda index: index.search(Q[:3], 5, plan=RAW, filter=SOME),
            "funnel": lambda index: index.search(
                Q[:3], 5, plan=[Stage("b1", dims=16, keep=60), Stage("b1", keep=40), Stage("i4", keep=20), Stage("i8")]
            ),
            "estimate": lambda index: index.estimate(Q[:2], [0, 9, 3], code="i4"),
            "explain": lambda index: [(stage.code, stage.rows) for stage in index.explain(Q[:3], 5, RAW).stages],
            "certificate": lambda index: index.explain(Q[:3], 5).certificate.survivors[-1],
            "reconstruct": lambda index: index.reconstruct([0, 9, 3]),
            "ids": lambda index: index.ids,
            "in": lambda index: 500 in index,
            "size": len,
            "memory": lambda index: index.memory_usage(),
            "bytes": to_bytes,
            "copy": lambda index: copy.copy(index).search(Q[:1], 15),
        },
    ),
    "named vectors": Subject(
        lambda: nv.NestedIndex(D, LEVELS, "cosine", "bfloat16", rotate=True, transform=TURNED),
        _changes(
            IDS,
            lambda index, some: index.add(X[some], IDS[some]),
            lambda index, some: index.update(IDS[some], X[some] + 1),
        ),
        lambda index: index.add(X[:1], [10 * ROWS]),
        {
            "exact": lambda index: index.search(Q[:1], 15, threads=2),
            "exact batch": lambda index: index.search(Q, 15, threads=1),
            "filtered": lambda index: index.search(Q[:3], 15, filter=SOME, threads=2),
            "prefix": lambda index: index.search(Q[:5], 15, dims=23),
            "plan": lambda index: index.search(Q[:3], 5, plan=RAW, threads=2),
            "estimate": lambda index: index.estimate(Q[:2], IDS[:3]),
            "reconstruct": lambda index: index.reconstruct(IDS[:5]),
            "in": lambda index: IDS[12] in index,
        },
    ),
    "codes of vectors": Subject(
        lambda: nv.NestedIndex(D, LEVELS, "l2", None, codes=("b1", "i4")),
        _changes(
            range(ROWS),
            lambda index, some: index.add(X[some]),
            lambda index, some: index.update(np.arange(ROWS)[some], X[some] + 1),
        ),
        lambda index: index.add(X[:1]),
        {
            "plan": lambda index: index.search(Q, 5, plan=[Stage("b1", keep=40), Stage("i4")], threads=2),
            "estimate": lambda index: index.estimate(Q[:2], [0, 9, 3]),
        },
    ),
    "binary codes": Subject(
        lambda: nv.BinaryIndex(BITS),
        _changes(
            range(ROWS),
            lambda index, some: index.add(CODES[some], threads=2),
            lambda index, some: index.update(np.arange(ROWS)[some], CODES[some] ^ 7),
        ),
        lambda index: index.add(CODES[:1]),
        {
            "search": lambda index: index.search(CODES[:1] ^ 5, 15, threads=1),
            "batch": lambda index: index.search(CODES[:20] ^ 5, 15, bits=100, threads=2),
            "filtered": lambda index: index.search(CODES[:3] ^ 5, 15, filter=FEW),
            "plan": lambda index: index.search(CODES[:20] ^ 5, 5, plan=BIT_PLAN, threads=2),
            "filtered plan": lambda index: index.search(CODES[:3] ^ 5, 5, plan=BIT_PLAN, filter=FEW),
            "explain": lambda index: [s.rows for s in index.explain(CODES[:3] ^ 5, 5, BIT_PLAN).stages],
            "range": lambda index: index.range_search(CODES[:5] ^ 5, 90, threads=2),
            "reconstruct": lambda index: index.reconstruct([0, 9, 3]),
        },
    ),
    "named binary codes": Subject(
        lambda: nv.BinaryIndex(BITS, thresholds=0.1),
        _changes(
            IDS,
            lambda index, some: index.add(CODES[some], IDS[some]),
            lambda index, some: index.update(IDS[some], CODES[some] ^ 7),
        ),
        lambda index: index.add(CODES[:1], [10 * ROWS]),
        {
            "search": lambda index: index.search(CODES[:3] ^ 5, 15, threads=2),
            "filtered": lambda index: index.search(CODES[:3] ^ 5, 15, filter=SOME),
            "plan": lambda index: index.search(CODES[:1] ^ 5, 5, plan=BIT_PLAN, threads=2),
            "reconstruct": lambda index: index.reconstruct(IDS[:3]),
            "bytes": to_bytes,
        },
    ),
    "documents": Subject(
        lambda: nv.MultiVectorIndex(ENCODER, codes=("b1", "i8")),
        _changes(
            range(ROWS),
            lambda index, some: index.add(DOCS[some], threads=2),
            lambda index, some: index.update(range(ROWS)[some], DOCS[100:][some]),
        ),
        lambda index: index.add(DOCS[1:2]),
        {
            "exact": lambda index: index.search(QUERIES[0], 9, exact=True, threads=2),
            "filtered": lambda index: index.search(QUERIES[:3], 9, exact=True, filter=FEW, threads=2),
            "shortlist": lambda index: index.shortlist(QUERIES, 9, threads=1),
            "candidates": lambda index: index.search(QUERIES, 5, candidates=30, filter=SOME, threads=2),
            "explain": lambda index: [s.rows for s in index.explain(QUERIES, 5, exact=True, filter=SOME).stages],
            "explain candidates": lambda index: [s.rows for s in index.explain(QUERIES, 5, candidates=30).stages],
            "carved": lambda index: index.search(QUERIES[1], 5, carve=5.0, exact=True),
            "range": lambda index: index.range_search(QUERIES[:2], 20.0),
            "reconstruct": lambda index: index.reconstruct([1, 8, 3]),
        },
    ),
    "named documents": Subject(
        lambda: nv.MultiVectorIndex(ENCODER, "i8"),
        _changes(
            NAMES,
            lambda index, some: index.add(DOCS[some], NAMES[some]),
            lambda index, some: index.update(NAMES[some], DOCS[100:][some]),
        ),
        lambda index: index.add(DOCS[1:2], ["one more"]),
        {
            "exact": lambda index: index.search(QUERIES[:2], 9, exact=True),
            "filtered": lambda index: index.search(QUERIES[:2], 9, exact=True, filter=NAMES[3:900:5]),
            "candidates": lambda index: index.search(QUERIES, 5, candidates=30, threads=2),
            "reconstruct": lambda index: index.reconstruct(["id 1", "id 8"]),
            "bytes": to_bytes,
        },
    ),
}
SUBJECTS["mapped vectors"] = SUBJECTS["vectors"]._replace(make=mapped, steps=SUBJECTS["vectors"].steps[MAPPED:])

STATELESS: dict[str, Callable[[], Any]] = {
    "pack_bits": lambda: nv.pack_bits(X, thresholds=0.5),
    "hamming": lambda: nv.hamming(CODES[:3], CODES, threads=2),
    "hamming_topk": lambda: nv.hamming_topk(CODES[:3], CODES, 9, bits=100),
    "intersection": lambda: nv.intersection(CODES[:3], CODES),
    "intersection_topk": lambda: nv.intersection_topk(CODES[:3], CODES, 9),
    "jaccard": lambda: nv.jaccard(CODES[:3], CODES),
    "jaccard_topk": lambda: nv.jaccard_topk(CODES[:3], CODES, 9, threads=2),
    "as_ubinary": lambda: nv.as_ubinary(CODES.view(np.int8)),
    "prefix_topk": lambda: nv.prefix_topk(Q, X, 9, dims=23, metric="cosine", threads=2),
    "prefix_scores": lambda: nv.prefix_scores(Q, X.astype(np.float16), metric="l2"),
    "maxsim": lambda: nv.maxsim(QUERIES, DOCS[:100], threads=2),
    "maxsim_topk": lambda: nv.maxsim_topk(QUERIES, DOCS[:100], 9),
    "carve": lambda: nv.carve(QUERIES[0], 5.0),
    "encode_documents": lambda: ENCODER.encode_documents(DOCS[:100], threads=2),
    "encode_queries": lambda: ENCODER.encode_queries(QUERIES),
    "encoder": lambda: nv.FixedDimensionalEncoder(16, projection_dim=4).fingerprint(),
}


def bits(answer: Any) -> Any:
    """An answer as something that can be compared and hashed."""
    if isinstance(answer, np.ndarray):
        return answer.shape, answer.dtype.str, tuple(answer.ravel()) if answer.dtype == object else answer.tobytes()
    return tuple(map(bits, answer)) if isinstance(answer, list | tuple) else answer
