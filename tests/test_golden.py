"""Files of released versions: they load, give known answers, and come out of another save byte for byte.

`python tests/test_golden.py` wrote those of each version, by the version of the package that first had it: those with
a transform or plans are of 1.1, the others of 1.0. A new version of the format gets files of its own; these are never
written again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec as nv
from nestvec import Stage

GOLDEN = Path(__file__).parent / "golden"
D, N = 20, 70


def numbers(first: int, last: int) -> np.ndarray:
    """Rows of small multiples of a quarter."""
    row, column = np.arange(first, last)[:, None], np.arange(D)
    return ((row * 37 + column * 101 + row * column * 13 + row * row % 29) % 23 - 11).astype(np.float32) / 4


def with_vectors(index: Any) -> Any:
    """Rows with and without given ids, some of them removed, one updated."""
    index.add(numbers(0, 40))
    index.add(numbers(40, N), np.arange(200, 200 - N + 40, -1))
    index.remove([0, 7, 39, 180])
    index.update([11], numbers(100, 101))
    return index


def with_documents(index: Any, strings: bool) -> Any:
    offsets = np.arange(0, N + 1, 5)
    index.add((numbers(0, N), offsets), [f"№{at}" for at in range(len(offsets) - 1)] if strings else None)
    index.remove(["№3", "№12"] if strings else [3, 12])
    return index


def documents(fitted: bool, tokens: str, codes: tuple[str, ...]) -> Any:
    sizes = {"num_repetitions": 2, "num_simhash_projections": 2, "projection_dim": 5}
    encoder = nv.FixedDimensionalEncoder(D, **sizes)
    if fitted:
        encoder = nv.FixedDimensionalEncoder.fitted(numbers(0, N), **sizes)
    return with_documents(nv.MultiVectorIndex(encoder, tokens, codes=codes), strings=not fitted)


def quarter_turns() -> np.ndarray:
    """An orthogonal matrix of halves."""
    two = np.asarray([[1, 1], [1, -1]])
    return np.kron(np.eye(D // 4), np.kron(two, two)) / 2


def planned() -> Any:
    index = with_vectors(nv.NestedIndex(D, (8,), "l2"))
    stages, rough = (
        (Stage("b1", 8, keep=30), Stage("b1", keep=9), Stage("raw")),
        (Stage("b1", 8, times=4), Stage("raw")),
    )
    points = nv.plan.Point(stages, 0.97, 0.95, 1e-4), nv.plan.Point(rough, 0.96, 0.951, 2.5e-4)
    index._plans = (
        nv.Plan(stages, 3, D, 0.95, 0.9, 0.97, 0.95, 40, True, 66, 1e-4, 3e-4, 16, "avx2", points),
        nv.Plan((), 4, D, 0.99, 0.9, 1.0, 1.0, 5, False, 66, 3e-4, 3e-4, None, "avx2", (), "5 queries are few"),
    )
    return index


MAKE: dict[str, Callable[[], Any]] = {
    "nested-f32": lambda: with_vectors(nv.NestedIndex(D, (8,), "l2", codes=("b1", "i4"))),
    "nested-f16": lambda: with_vectors(nv.NestedIndex(D, (10,), "cosine", "float16", rotate=True)),
    "nested-bf16": lambda: with_vectors(nv.NestedIndex(D, None, "ip", "bfloat16", center=False)),
    "nested-codes": lambda: with_vectors(nv.NestedIndex(D, (8,), "ip", None, codes=("b1", "i4"))),
    "nested-rotated": lambda: with_vectors(nv.NestedIndex(D, (8,), "l2", transform=quarter_turns())),
    "nested-permuted": lambda: with_vectors(nv.NestedIndex(D, (8,), "ip", "float16", transform=np.arange(D)[::-1])),
    "nested-adapted": lambda: with_vectors(nv.NestedIndex(9, (8,), transform=nv.Transform(numbers(0, 9).T))),
    "nested-hadamard": lambda: with_vectors(
        nv.NestedIndex(D, (8,), "cosine", transform=nv.fit_rotation(numbers(0, N), "hadamard", (8,), seed=7))
    ),
    "nested-planned": planned,
    "binary": lambda: with_vectors(nv.BinaryIndex(D, (12,), thresholds=0.25)),
    "multi-strings": lambda: documents(False, "f16", ("b1",)),
    "multi-fitted": lambda: documents(True, "i8", ("b1", "i8")),
    "empty": lambda: nv.NestedIndex(D),
}

Q = numbers(12, 14)
CALLS: dict[str, Callable[[Any], Any]] = {
    "exact": lambda index: index.search(Q, 4),
    "prefix": lambda index: index.search(Q, 3, dims=8),
    "plan": lambda index: index.search(Q, 3, plan=[Stage("b1", keep=9), Stage("raw")]),
    "nibbles": lambda index: index.search(Q, 3, plan=[Stage("b1", keep=9), Stage("i4")])[1],
    "recall": lambda index: index.search(Q, 3, recall=0.95),
    "bits": lambda index: index.search(Q, 4, bits=15),
    "documents": lambda index: index.search(Q, 3, exact=True),
    "candidates": lambda index: index.search(Q, 2, candidates=5)[1],
}
ANSWERS: dict[str, dict[str, Any]] = {
    "nested-f32": {
        "exact": (
            [[0.0, 51.8125, 51.8125, 53.5625], [0.0, 0.0, 60.0, 63.75]],
            [[12, 17, 200, 172], [13, 181, 177, 17]],
        ),
        "prefix": ([[0.0, 2.0, 3.75], [0.0, 0.0, 8.75]], [[12, 35, 198], [13, 181, 29]]),
        "plan": ([[0.0, 51.8125, 51.8125], [0.0, 0.0, 60.0]], [[12, 17, 200], [13, 181, 177]]),
        "nibbles": [[12, 17, 200], [13, 181, 177]],
    },
    "nested-f16": {
        "exact": (
            [[1.0, 0.5152587890625, 0.45148077607154846, 0.3598059415817261],
             [1.0, 1.0, 0.37946227192878723, 0.3533359467983246]],
            [[12, 172, 35, 3], [13, 181, 193, 189]],
        ),
        "plan": (
            [[1.0, 0.5152587890625, 0.45148077607154846], [1.0, 1.0, 0.37946227192878723]],
            [[12, 172, 35], [13, 181, 193]],
        ),
    },
    "nested-bf16": {
        "exact": (
            [[52.0625, 28.375, 24.5, 17.6875], [58.75, 58.75, 21.0, 19.375]],
            [[12, 172, 35, 32], [13, 181, 189, 193]],
        ),
        "prefix": ([[18.5625, 17.9375, 17.75], [23.75, 23.75, 16.875]], [[35, 12, 198], [13, 181, 29]]),
    },
    "nested-codes": {"nibbles": [[12, 172, 35], [13, 181, 189]]},
    "nested-rotated": {
        "exact": (
            [[0.0, 51.8125, 51.8125, 53.5625], [0.0, 0.0, 60.0, 63.75]],
            [[12, 17, 200, 172], [13, 181, 177, 17]],
        ),
        "prefix": ([[0.0, 2.0, 3.75], [0.0, 0.0, 8.75]], [[12, 35, 198], [13, 181, 29]]),
    },
    "nested-permuted": {
        "exact": (
            [[52.0625, 28.375, 24.5, 17.6875], [58.75, 58.75, 21.0, 19.375]],
            [[12, 172, 35, 32], [13, 181, 189, 193]],
        ),
        "prefix": ([[21.1875, 19.5, 11.8125], [23.75, 23.75, 16.5]], [[12, 19, 172], [13, 181, 28]]),
    },
    "nested-adapted": {
        "exact": (
            [[831.20703125, 831.20703125, 818.953125, 745.1640625],
             [1184.140625, 809.08203125, 780.40234375, 740.59765625]],
            [[3, 26, 12, 5], [191, 189, 14, 2]],
        ),
        "prefix": (
            [[996.41796875, 996.41796875, 768.1875], [820.96484375, 806.10546875, 687.36328125]],
            [[3, 26, 12], [2, 189, 33]],
        ),
    },
    "nested-hadamard": {
        "exact": (
            [[1.0, 0.5152587890625, 0.45148077607154846, 0.3598059415817261],
             [1.0, 1.0, 0.37946227192878723, 0.3533359467983246]],
            [[12, 172, 35, 3], [13, 181, 193, 189]],
        ),
        "prefix": (
            [[1.0, 0.9521725177764893, 0.9078209400177002], [1.0, 1.0, 0.7996709942817688]],
            [[12, 35, 198], [13, 181, 29]],
        ),
    },
    "nested-planned": {"recall": ([[0.0, 51.8125, 51.8125], [0.0, 0.0, 60.0]], [[12, 17, 200], [13, 181, 177]])},
    "binary": {
        "exact": ([[0, 2, 4, 7], [0, 0, 6, 6]], [[12, 172, 35, 32], [13, 181, 29, 191]]),
        "bits": ([[0, 2, 3, 4], [0, 0, 3, 5]], [[12, 172, 35, 5], [13, 181, 29, 189]]),
    },
    "multi-strings": {
        "documents": ([[110.8125, 76.4375, 35.3125]], [["№2", "№11", "№5"]]),
        "candidates": [["№2", "№11"]],
    },
    "multi-fitted": {
        "documents": ([[110.70915985107422, 76.36122131347656, 35.17076873779297]], [[2, 11, 5]]),
        "candidates": [[2, 11]],
    },
    "empty": {},
}  # fmt: skip


@pytest.fixture(params=ANSWERS)
def name(request: pytest.FixtureRequest) -> str:
    """Of a file."""
    return str(request.param)


def listed(answer: Any) -> Any:
    return tuple(map(listed, answer)) if isinstance(answer, tuple) else answer.tolist()


@pytest.mark.parametrize("mmap", [False, True])
def test_known_answers(name: str, mmap: bool) -> None:
    index = nv.load(GOLDEN / f"{name}.nv", mmap=mmap)
    assert {call: listed(CALLS[call](index)) for call in ANSWERS[name]} == ANSWERS[name]
    assert len(index) == {"e": 0, "m": 12}.get(name[0], 66)


def test_saved_again(name: str, tmp_path: Path) -> None:
    nv.load(GOLDEN / f"{name}.nv").save(tmp_path / "x.nv")
    assert (tmp_path / "x.nv").read_bytes() == (GOLDEN / f"{name}.nv").read_bytes()


def test_what_is_made_today_answers_alike(name: str) -> None:
    index = MAKE[name]()
    assert {call: listed(CALLS[call](index)) for call in ANSWERS[name]} == ANSWERS[name]


def test_every_file_is_known() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.nv")) == sorted(ANSWERS) == sorted(MAKE)


if __name__ == "__main__":
    for stem, make in MAKE.items():
        if not (GOLDEN / f"{stem}.nv").exists():
            make().save(GOLDEN / f"{stem}.nv")
