"""Indexes as files: what is loaded answers as what was saved, goes on like it, and refuses all that no index holds."""

from __future__ import annotations

import copy
import itertools
import operator
import os
import pickle
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec as nv
from forging import Sections, apart, together
from inputs import orthogonal
from nestvec import FileError, Stage, files, parallel, storage

D, BITS = 20, 100
OPENINGS: list[dict[str, Any]] = [
    {},
    {"verify": "header"},
    {"mmap": True},
    {"mmap": True, "verify": "header"},
]

_rng = np.random.default_rng(7)
X = _rng.integers(-6, 7, (3000, D)).astype(np.float32)
CODES = _rng.integers(0, 256, (3000, -(-BITS // 8)), np.uint8)
CODES[:, -1] &= 0xF0
DOCS = [X[3 * at : 3 * at + at % 4] for at in range(700)]
ENCODER = nv.FixedDimensionalEncoder(D, num_repetitions=3, num_simhash_projections=2, projection_dim=4)
FITTED = nv.FixedDimensionalEncoder.fitted(X, num_repetitions=2, num_simhash_projections=2, projection_dim=4)
FINAL = nv.FixedDimensionalEncoder(D, num_repetitions=2, num_simhash_projections=2, final_projection_dim=30)

MAKE: dict[str, Callable[[], Any]] = {
    "ip": lambda: nv.NestedIndex(D, codes=("b1", "i4")),
    "l2 float16": lambda: nv.NestedIndex(D, (5, 9), "l2", "float16"),
    "cosine bfloat16": lambda: nv.NestedIndex(D, (16,), "cosine", "bfloat16", codes=("i4",), center=False),
    "rotated": lambda: nv.NestedIndex(D, (7,), "cosine", rotate=True),
    "wide": lambda: nv.NestedIndex(D, range(1, D), codes="i4"),
    "signs": lambda: nv.NestedIndex(D, (16,), "l2", None),
    "nibbles": lambda: nv.NestedIndex(D, None, "ip", None, codes=("i4",)),
    "bytes": lambda: nv.NestedIndex(D, (8,), "cosine", None, codes=("b1", "i4", "i8")),
    "pca": lambda: nv.NestedIndex(D, (8,), "cosine", transform=nv.fit_rotation(X[:500])),
    "block-pca": lambda: nv.NestedIndex(D, (8,), "l2", "float16", transform=nv.fit_rotation(X, "block-pca", (8,))),
    "hadamard": lambda: nv.NestedIndex(D, codes=("b1", "i4"), transform=nv.fit_rotation(X, "hadamard", (5,), seed=3)),
    "permuted": lambda: nv.NestedIndex(D, transform=np.arange(D)[::-1]),
    "adapted": lambda: nv.NestedIndex(12, None, "ip", None, transform=nv.Transform(X[:D, :12] / 8)),
    "multiplied": lambda: nv.NestedIndex(D, (9,), "l2", transform=orthogonal(np.random.default_rng(0), D)),
    "binary": lambda: nv.BinaryIndex(BITS),
    "binary by thresholds": lambda: nv.BinaryIndex(BITS, (64, 70), np.linspace(-1, 1, BITS)),
    "documents": lambda: nv.MultiVectorIndex(ENCODER, codes=("b1", "i8")),
    "documents float32": lambda: nv.MultiVectorIndex(ENCODER, "f32", levels=(1, 3)),
    "documents bfloat16": lambda: nv.MultiVectorIndex(FINAL, "bf16", codes=("i4",)),
    "documents int8": lambda: nv.MultiVectorIndex(FITTED, "i8"),
}


def rows(index: Any, some: slice) -> Any:
    if isinstance(index, nv.BinaryIndex):
        return CODES[some]
    return DOCS[some] if isinstance(index, nv.MultiVectorIndex) else X[some]


def add(index: Any, first: int, last: int, ids: Any = None) -> None:
    index.add(rows(index, slice(first, last)), ids)


def changed(index: Any) -> Any:
    """An index with segments of both kinds, with rows removed, updated and put back."""
    add(index, 0, 70)
    add(index, 70, 200, np.arange(500, 370, -1))
    add(index, 200, 265)
    index.remove([3, 64, 69, 500, 371, 505])
    index.update([10, 400, 510], rows(index, slice(300, 303)))
    add(index, 310, 312, [3, 500])
    return index


def removed(index: Any) -> Any:
    add(index, 0, 65)
    index.remove(index.ids)
    return index


def compacted(index: Any) -> Any:
    changed(index).compact()
    return index


def cleared(index: Any) -> Any:
    changed(index).clear()
    add(index, 0, 5)
    return index


def of(count: int) -> Callable[[Any], Any]:
    def fill(index: Any) -> Any:
        add(index, 0, count)
        return index

    return fill


def named(index: Any) -> Any:
    """Strings where there can be any."""
    strings = isinstance(index, nv.MultiVectorIndex)
    names = [f"né {at}" if at else "" for at in range(80)]
    add(index, 0, 80, names if strings else None)
    index.remove([names[7]] if strings else [7])
    return index


FILL: dict[str, Callable[[Any], Any]] = {
    "0": of(0), "1": of(1), "63": of(63), "64": of(64), "65": of(65), "changed": changed, "removed": removed,
    "compacted": compacted, "cleared": cleared, "named": named,
}  # fmt: skip


def same(a: Any, b: Any) -> None:
    """The same answers, bit for bit."""
    if isinstance(a, tuple | list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, strict=True)
    else:
        assert a == b


def answers(index: Any) -> list[Any]:
    """To questions of every kind that the index answers."""
    found: list[Any] = [repr(index), len(index), index.ids, index.ntotal, "x" in index, 10**9 in index]
    if not len(index):
        return found
    q, some = rows(index, slice(600, 603)), index.ids[::9]
    if isinstance(index, nv.BinaryIndex):
        found += [index.search(q, 9), index.search(q, 3, bits=70), index.range_search(q, 45), index.reconstruct(some)]
        return [*found, index.search(q, 5, filter=range(2, 400, 3))]
    if isinstance(index, nv.MultiVectorIndex):
        q = [X[:4], X[9:11]]
        found += [index.search(q, 9, exact=True), index.search(q, 5, candidates=20), index.shortlist(q, 8)]
        found += [index.reconstruct(some), index.range_search(q, 60.0)]
        return [*found, index.search(q, 5, filter=some.tolist(), exact=True)]
    found += [index.transform, None if index.transform is None else index.transform.energy]
    if index.rows is not None:
        found += [
            index.search(q, 9),
            index.search(q, 5, dims=5),
            index.search(X[:20], 4, dims=6),
            index.reconstruct(some),
        ]
        found += [index.range_search(q, 9.0), index.search(q, 5, filter=range(2, 400, 3)), index.search(X[:20], 4)]
    for code in index.codes:
        last = "raw" if index.rows else code
        found.append(index.search(q, 5, plan=[Stage(code, keep=20), Stage(last)]))
        found += [index.estimate(q, some, code=code)] if code != "i8" else []
    return found


@pytest.mark.parametrize("fill", FILL)
@pytest.mark.parametrize("make", MAKE)
def test_round_trip(make: str, fill: str, tmp_path: Path) -> None:
    """Loaded in any way: answers, bytes of another save, and whatever is done next."""
    index = FILL[fill](MAKE[make]())
    path = tmp_path / "x.nv"
    index.save(path)
    before, data = answers(index), path.read_bytes()
    assert files.to_bytes(index) == data
    others = [nv.load(path, **how) for how in OPENINGS]
    others += [nv.load(data), copy.copy(index), copy.deepcopy(others[2]), pickle.loads(pickle.dumps(index))]
    go_on(index)
    for other in others:
        assert type(other) is type(index)
        same(answers(other), before)
        assert files.to_bytes(other) == data
        go_on(other)
        assert files.to_bytes(other) == files.to_bytes(index)
    assert path.read_bytes() == data


def go_on(index: Any) -> None:
    """Change an index in all ways, to a state in which those that held the same have the same bytes."""
    strings = isinstance(index, nv.MultiVectorIndex) and index.ids.dtype == object
    add(index, 400, 431, [f"more {at}" for at in range(31)] if strings else None)
    some = index.ids
    index.update(some[-3:], rows(index, slice(440, 443)))
    index.remove(some[-20:-10])
    if not strings:
        add(index, 450, 452, [9000, 8000])
    index.compact()


@pytest.mark.parametrize("make", ["ip", "binary", "documents"])
def test_mapped(make: str, tmp_path: Path, backend: Any) -> None:
    """Kernels of all backends take arrays that cannot be written to."""
    index = changed(MAKE[make]())
    index.save(tmp_path / "x.nv")
    same(answers(nv.load(tmp_path / "x.nv", mmap=True)), answers(index))


def test_mapped_arrays_are_those_of_the_file(tmp_path: Path) -> None:
    index = changed(MAKE["bytes"]())
    index.save(tmp_path / "x.nv")
    mapped = nv.load(tmp_path / "x.nv", mmap=True)
    for segment, _, sealed in mapped._contents.stored:
        assert sealed
        held = [segment.codes, segment.stats, segment.blocks, segment.signs.words.words, segment.signs.factors]
        assert not any(array.flags.writeable for array in [*held, segment.nibbles.nibbles, segment.nibbles.factors])
    assert files.to_bytes(mapped) == (tmp_path / "x.nv").read_bytes()


@pytest.mark.parametrize("make", ["ip", "binary", "documents"])
def test_a_mapped_file_that_changes_is_an_error(make: str, tmp_path: Path) -> None:
    index = changed(MAKE[make]())
    path = tmp_path / "x.nv"
    index.save(path)
    mapped, compact, clear = (nv.load(path, mmap=True) for _ in range(3))
    compact.compact()
    clear.clear()
    os.truncate(path, 5000)
    for call in calls(mapped):
        with pytest.raises(FileError, match=f"{path} changed under the index"):
            call()
    same(answers(compact), answers(index))
    assert len(clear) == 0
    add(clear, 0, 3)
    assert len(clear) == 3


def calls(index: Any) -> list[Callable[[], Any]]:
    """Everything that reads, or changes, what an index holds."""
    q, k = rows(index, slice(0, 2)), 3
    found = [
        lambda: index.search(q, k), lambda: index.range_search(q, 1), lambda: index.reconstruct([5]), lambda: index.ids,
        lambda: 5 in index, lambda: index.remove([5]), lambda: index.update([5], rows(index, slice(0, 1))),
        lambda: add(index, 0, 1), lambda: index.save("/dev/null"), lambda: copy.copy(index), index.compact,
        lambda: MAKE["ip"]().merge(index) if isinstance(index, nv.NestedIndex) else index.merge(index),
    ]  # fmt: skip
    if isinstance(index, nv.NestedIndex):
        found += [lambda: index.explain(q, k), lambda: index.estimate(q, [5])]
    if isinstance(index, nv.MultiVectorIndex):
        found.append(lambda: index.shortlist(q, k))
    return found


@pytest.mark.parametrize(
    ("call", "module", "step"),
    [
        (lambda mapped, _: mapped.search(X[:1], 3), parallel, "check"),
        (lambda mapped, _: mapped.compact(), parallel, "check"),
        (lambda mapped, target: mapped.save(target), storage, "write_to"),
        (lambda mapped, _: pickle.dumps(mapped), storage, "to_bytes"),
    ],
    ids=["search", "compact", "save", "pickle"],
)
def test_a_file_that_changes_during_a_call_is_an_error(
    call: Callable[[Any, Path], Any], module: Any, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target, done = tmp_path / "x.nv", tmp_path / "y.nv", getattr(module, step)
    target.write_bytes(b"before")
    changed(MAKE["ip"]()).save(path)
    mapped = nv.load(path, mmap=True)

    def interfere(*args: Any) -> Any:
        os.utime(path, ns=(0, 0))
        return done(*args)

    monkeypatch.setattr(module, step, interfere)
    with pytest.raises(FileError, match="changed under the index"):
        call(mapped, target)
    assert target.read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["x.nv", "y.nv"]
    with pytest.raises(FileError, match="changed under the index"):
        mapped.search(X[:1], 3)


@pytest.mark.parametrize("make", ["ip", "binary", "documents"])
def test_a_change_that_shows_is_never_refused(make: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is found changed at each look in turn: the index is as before whenever a change is refused."""
    index = changed(MAKE[make]())
    index.save(tmp_path / "x.nv")
    for change in (lambda mapped: add(mapped, 0, 3), lambda mapped: mapped.remove(mapped.ids[:2])):
        refused, look = True, -1
        while refused:
            mapped, looks = nv.load(tmp_path / "x.nv", mmap=True), iter(range(100))
            look, refused = look + 1, False

            def check(last: int = look, looks: Any = looks) -> None:
                if next(looks) == last:
                    raise FileError("changed")

            with monkeypatch.context() as patch:
                patch.setattr(mapped._file, "check_unchanged", check)
                try:
                    change(mapped)
                except FileError:
                    refused = True
            assert refused == (len(mapped) == len(index))
        assert look >= 2


def test_saving_over_the_file_that_is_mapped(tmp_path: Path) -> None:
    index, path = changed(MAKE["ip"]()), tmp_path / "x.nv"
    index.save(path)
    mapped = nv.load(path, mmap=True)
    mapped.remove([0])
    mapped.save(path)
    index.remove([0])
    same(answers(mapped), answers(index))
    same(answers(nv.load(path, mmap=True)), answers(index))
    path.unlink()
    same(answers(mapped), answers(index))


def test_adding_to_a_mapped_index_that_fails_changes_nothing(tmp_path: Path) -> None:
    index, path = changed(MAKE["ip"]()), tmp_path / "x.nv"
    index.save(path)
    mapped, wrong = nv.load(path, mmap=True), X[:2].copy()
    wrong[1, 3] = np.nan
    with pytest.raises(ValueError, match="row 1, column 3"):
        mapped.add(wrong)
    same(answers(mapped), answers(index))


# What is saved while others change the index, or not at all


@pytest.mark.parametrize("make", ["ip", "binary", "documents"])
def test_what_is_saved_is_one_state(make: str, tmp_path: Path) -> None:
    """Rows come in pairs and go in pairs, so every state has an even number of each."""
    index, over = MAKE[make](), threading.Event()
    add(index, 0, 2)

    def change() -> None:
        for at in range(2, 400, 2):
            add(index, at, at + 2)
            if at % 6 == 0:
                index.remove([at - 1, at - 2])
        over.set()

    thread = threading.Thread(target=change)
    thread.start()
    seen = 0
    while not over.is_set() or not seen:
        index.save(tmp_path / "x.nv")
        found = nv.load(tmp_path / "x.nv")
        ids, seen = found.ids, seen + 1
        assert len(ids) % 2 == 0
        np.testing.assert_array_equal(ids[::2] + 1, ids[1::2])
        for one, row in zip(ids, found.reconstruct(ids), strict=True):
            np.testing.assert_array_equal(row, rows(index, slice(one, one + 1))[0])
        assert nv.load(files.to_bytes(found)).ntotal == found.ntotal
    thread.join()


@pytest.mark.parametrize("make", ["ip", "documents"])
def test_interrupted_saves_leave_the_old_file(make: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, path = MAKE[make](), tmp_path / "x.nv"
    add(index, 0, 10)
    index.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(storage, "BLOCK", 1024)
    changed(index)

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "check", stop)
    with pytest.raises(KeyboardInterrupt):
        index.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.nv"]


def test_saving_takes_what_a_file_takes(tmp_path: Path) -> None:
    index = MAKE["ip"]()
    add(index, 0, 3)
    with pytest.raises(IsADirectoryError):
        index.save(tmp_path)
    with pytest.raises(FileNotFoundError):
        index.save(tmp_path / "nowhere" / "x.nv")


def test_ids_that_are_no_text(tmp_path: Path) -> None:
    index = MAKE["documents"]()
    index.add(DOCS[:2], ["fine", "\ud800"])
    with pytest.raises(ValueError, match="UTF-8"):
        index.save(tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_too_many_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SEGMENTS", 2)
    index = MAKE["ip"]()
    add(index, 0, 3)
    add(index, 3, 5, [100, 200])
    data = files.to_bytes(index)
    add(index, 5, 6)
    with pytest.raises(ValueError, match=r"3 segments cannot be saved; call compact\(\) first"):
        files.to_bytes(index)
    index.compact()
    files.to_bytes(index)
    monkeypatch.setattr(files, "MAX_SEGMENTS", 1)
    with pytest.raises(FileError, match="2 segments are too many"):
        nv.load(data)


def test_tables_that_no_file_is_large_enough_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader would refuse to draw is not written."""
    data = files.to_bytes(MAKE["documents"]())
    monkeypatch.setattr(files, "TABLES", 0)
    with pytest.raises(ValueError, match="the encoder draws tables of 14928 bytes"):
        files.to_bytes(MAKE["documents"]())
    with pytest.raises(FileError, match="its encoder asks for tables of 14928 bytes"):
        nv.load(data)


# Elsewhere


@pytest.mark.parametrize("make", ["ip", "binary", "documents int8"])
def test_another_process_gets_an_index(make: str) -> None:
    index = changed(MAKE[make]())
    ask = operator.methodcaller("search", rows(index, slice(1, 3)), 4)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        same(pool.submit(ask, index).result(), ask(index))
        other = pool.submit(copy.copy, index).result()
    same(answers(other), answers(index))


def test_pickles_hold_files(tmp_path: Path) -> None:
    """Nothing in a pickle of an index is believed either."""
    index = changed(MAKE["ip"]())
    data = pickle.dumps(index)
    assert files.to_bytes(index) in data
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    with pytest.raises(FileError, match="bytes given is damaged"):
        pickle.loads(damaged)


# What is no index


def test_what_is_no_index(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError):
        nv.load(path)
    with pytest.raises(IsADirectoryError):
        nv.load(tmp_path)
    wrong = {
        b"": "is empty",
        b"\x93NUMPY": "a numpy array",
        b"IxF2" + bytes(100): "an index of faiss",
        together("Forest", {}, {}): "holds a Forest, which this nestvec does not know",
    }
    whole = files.to_bytes(MAKE["ip"]())
    wrong[whole[:8] + struct.pack("<HH", 1, 7) + whole[12:]] = r"format 1\.7, this nestvec reads up to 1\.1"
    wrong[whole[:-1]] = "is truncated"
    for data, match in wrong.items():
        path.write_bytes(data)
        for how in OPENINGS:
            with pytest.raises(FileError, match=f"^{path} .*{match}"):
                nv.load(path, **how)
        with pytest.raises(FileError, match=f"^bytes given .*{match}"):
            nv.load(data)


Change = Callable[[dict[str, Any], Sections], None]


def meta(**values: Any) -> Change:
    return lambda given, _: given.update(values)


def transform(**values: Any) -> Change:
    return lambda given, _: given["transform"].update(values)


def encoder(**values: Any) -> Change:
    return lambda given, _: given["encoder"].update(values)


def without(name: str) -> Change:
    return lambda given, sections: (given if name in given else sections).pop(name)


def without_section(name: str) -> Change:
    return lambda _, sections: sections.pop(name)


def put(name: str, at: Any, value: Any) -> Change:
    def change(_: dict[str, Any], sections: Sections) -> None:
        sections[name][at] = value

    return change


def replaced(name: str, by: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(_: dict[str, Any], sections: Sections) -> None:
        sections[name] = by(sections[name])

    return change


def both(*changes: Change) -> Change:
    def change(given: dict[str, Any], sections: Sections) -> None:
        for one in changes:
            one(given, sections)

    return change


SHORTER = {
    name: (replaced(name, lambda a: a[:-1]), f"has section '{name}' as")
    for name in ("rows", "codes", "stats", "blocks", "signs", "signs.factors", "nibbles", "nibbles.factors", "center")
}
ROWS: dict[str, tuple[Change, str]] = {
    "next id too small": (meta(next_id=513), "ids of rows overlap"),
    "next id too large": (meta(next_id=2**63 + 1), "next_id must be between"),
    "next id no number": (meta(next_id="5"), "next_id must be an integer"),
    "next id missing": (without("next_id"), "lacks 'next_id' in its metadata"),
    "levels descend": (meta(levels=[9, 5, 20]), "strictly ascending"),
    "levels by default": (meta(levels=None), "has metadata that no .* writes"),
    "levels text": (meta(levels="ab"), "a level must be an integer"),
    "levels number": (meta(levels=7), "levels must be a sequence"),
    "no levels": (meta(levels=[]), "has metadata that no .* writes"),
    "next id true": (meta(next_id=True), "next_id must be an integer"),
    "something more": (meta(more=1), "has metadata that no .* writes"),
    "ids missing": (without("ids"), "lacks section 'ids'"),
    "fewer ids": (replaced("ids", lambda a: a[:-1]), "ids are missing"),
    "more ids": (replaced("ids", lambda a: np.append(a, 7777)), "more ids than rows"),
    "an id below": (put("ids", 5, -1), "ids are out of range"),
    "an id above": (put("ids", 5, 2**62), "ids are out of range"),
    "an id twice": (put("ids", 5, 490), "an id is there twice"),
    "an id of another run": (put("ids", 5, 20), "an id is there twice"),
    "no segment": (replaced("segments", lambda a: a[:0]), "more ids than rows"),
    "fewer columns": (replaced("segments", lambda a: a[:, :2]), "has section 'segments' as"),
    "empty segment": (put("segments", (0, 0), 0), "an impossible segment"),
    "negative segment": (put("segments", (0, 0), -5), "an impossible segment"),
    "huge segment": (put("segments", (0, 0), 2**62), "an impossible segment"),
    "longer segment": (put("segments", (0, 0), 2**31 - 64), "has section"),
    "negative base": (put("segments", (0, 1), -1), "an impossible segment"),
    "high base": (put("segments", (0, 1), 2**62), "ids of rows overlap"),
    "overlapping bases": (put("segments", (0, 1), 500), "ids of rows overlap"),
    "listed maybe": (put("segments", (0, 2), 2), "an impossible segment"),
    "listed with a base": (put("segments", (1, 1), 1), "ids are missing"),
    "listed for more": (put("segments", (1, 0), 200), "ids are missing"),
    "fewer bits": (replaced("removed", lambda a: a[:-1]), "as many bits as rows"),
    "removed behind the end": (put("removed", 1, 1 << 63), "rows that do not exist were removed"),
    "unknown section": (
        lambda _, sections: sections.update(more=np.zeros(1)),
        "has a section that .* does not: 'more'",
    ),
}
NESTED: dict[str, tuple[Change, str]] = ROWS | SHORTER | {
    "no dims": (meta(d=0), "d must be between 1 and 65536"),
    "many dims": (meta(d=2**40), "d must be between 1 and 65536"),
    "other dims": (meta(d=21), "has section 'center' as"),
    "true dims": (meta(d=True), "d must be an integer"),
    "metric": (meta(metric="dot"), "metric must be one of"),
    "rows of another type": (meta(rows="float16"), "has section 'rows' as float32"),
    "rows of no type": (meta(rows="int8"), "rows must be one of"),
    "rows unknown": (meta(rows=None), "has a section that NestedIndex does not: 'rows'"),
    "codes twice": (meta(codes=["b1", "b1", "i4", "i8"]), "has metadata that no NestedIndex writes"),
    "codes in another order": (meta(codes=["i4", "b1", "i8"]), "has metadata that no NestedIndex writes"),
    "codes left out": (meta(codes=["b1", "i8"]), "has a section that NestedIndex does not"),
    "codes of no kind": (meta(codes=["b2"]), "a code must be one of"),
    "codes no list": (meta(codes=5), "not iterable"),
    "centered perhaps": (meta(center="no"), "has metadata that no NestedIndex writes"),
    "rotated": (meta(rotate=2), "has metadata that no NestedIndex writes"),
    "centered by number": (meta(center=1), "has metadata that no NestedIndex writes"),
    "center not finite": (put("center", 0, np.nan), "a center beyond"),
    "center infinite": (put("center", 3, -np.inf), "a center beyond"),
    "center far away": (put("center", 19, 1e50), "a center beyond"),
}  # fmt: skip
OTHER = "has metadata that no NestedIndex writes"
TRANSFORM: dict[str, tuple[Change, str]] = {
    "no object": (meta(transform=[]), "is no valid NestedIndex"),
    "nothing": (meta(transform=None), "is no valid NestedIndex"),
    "left out": (without("transform"), "has a section that NestedIndex does not: 'transform"),
    "other dims": (transform(d=19), "has section 'transform' as float32"),
    "no dims": (transform(d=0), "d must be between 1"),
    "many dims": (transform(d=2**40), "d must be between 1"),
    "of no kind": (transform(kind="rotation"), "kind must be one of"),
    "of another kind": (transform(kind="matrix"), "has a section that NestedIndex does not: 'transform.energy'"),
    "by level": (transform(kind="block-pca", levels=[8, 20]), "has values outside of them"),
    "a permutation": (transform(kind="permutation"), "lacks section 'transform.order'"),
    "levels": (transform(levels=[8, 20]), OTHER),
    "a seed": (transform(seed=1), OTHER),
    "oblique": (transform(orthogonal=False), OTHER),
    "orthogonal perhaps": (transform(orthogonal=1), OTHER),
    "something more": (transform(more=1), OTHER),
    "kind missing": (lambda given, _: given["transform"].pop("kind"), "lacks 'kind' in its metadata"),
    "energy missing": (without("transform.energy"), "lacks section 'transform.energy'"),
    "matrix missing": (without_section("transform"), "lacks section 'transform'"),
    "longer": (put("transform", 0, 2.0), "transform is not orthogonal"),
    "a little longer": (replaced("transform", lambda a: a * np.float32(1 + 1e-5)), "off by 2.01e-05, more than 1e-05"),
    "not finite": (put("transform", (3, 4), np.nan), "transform holds nan at row 3, column 4"),
    "wider": (replaced("transform", lambda a: a[:, 1:]), "has section 'transform' as"),
    "energy that falls": (put("transform.energy", 3, 0), "must ascend from 0 to 1"),
    "energy below": (put("transform.energy", 0, -1), "must ascend from 0 to 1"),
    "energy above": (put("transform.energy", -1, 1.5), "must ascend from 0 to 1"),
    "energy that is none": (put("transform.energy", 5, np.nan), "must ascend from 0 to 1"),
    "less energy": (replaced("transform.energy", lambda a: a[1:]), "has section 'transform.energy' as"),
}
PERMUTED: dict[str, tuple[Change, str]] = {
    "one twice": (put("transform.order", 3, 4), "is no permutation"),
    "one below": (put("transform.order", 3, -1), "is no permutation"),
    "one above": (put("transform.order", 3, 20), "is no permutation"),
    "fewer": (replaced("transform.order", lambda a: a[1:]), "has section 'transform.order' as"),
    "wider": (replaced("transform.order", lambda a: a.astype(np.int64)), "has section 'transform.order' as"),
    "other dims": (transform(d=19), OTHER),
    "oblique": (transform(orthogonal=False), OTHER),
    "hadamard": (transform(kind="hadamard", seed=0), "lacks section 'transform.energy'"),
}
HADAMARD: dict[str, tuple[Change, str]] = {
    "another seed": (transform(seed=-1), "seed must be between 0"),
    "no seed": (transform(seed=None), "seed must be an integer"),
    "default levels": (transform(levels=None), OTHER),
    "levels descend": (transform(levels=[9, 5, 20]), "strictly ascending"),
    "many dims": (meta(d=2**40), "d must be between 1 and 65536"),
    "other dims": (transform(d=19), OTHER),
    "oblique": (transform(orthogonal=False), OTHER),
}
BY_LEVEL: dict[str, tuple[Change, str]] = {
    "other levels": (transform(levels=[9, 20]), OTHER + "|has values outside"),
    "no levels": (transform(levels=None), OTHER),
    "across levels": (put("transform", (0, 19), 1e-7), "has values outside of them"),
}
BINARY: dict[str, tuple[Change, str]] = ROWS | {
    "no bits": (meta(bits=0), "bits must be between"),
    "other bits": (meta(bits=101), "has section 'thresholds' as"),
    "thresholds of another type": (meta(thresholds="float64"), "has section 'thresholds' as float32"),
    "thresholds of no type": (meta(thresholds="object"), "thresholds must be one of"),
    "thresholds not finite": (put("thresholds", 4, np.nan), "thresholds holds nan"),
    "fewer words": (replaced("words", lambda a: a[:-64]), "has section 'words' as"),
}
DOCUMENTS: dict[str, tuple[Change, str]] = {
    "other tokens": (meta(tokens="f32"), "has section 'tokens' as uint16"),
    "tokens of no type": (meta(tokens="f64"), "tokens must be one of"),
    "ids of no kind": (meta(ids="numbers"), "ids must be one of"),
    "ids unlisted": (meta(ids="positions"), "ids of rows overlap|has a section that"),
    "next id": (meta(next_id=300), "ids are out of range"),
    "fewer ids": (replaced("ids", lambda a: a[:-1]), "has section 'ids' as"),
    "an id twice": (put("ids", 75, 20), "an id is there twice"),
    "an id below": (put("ids", 75, -20), "ids are out of range"),
    "other levels": (meta(levels=[1, 2]), "has section 'encodings|has metadata"),
    "other codes": (meta(codes=["b1", "i4"]), "lacks section 'encodings.nibbles'"),
    "removed behind the end": (put("removed", -1, 1 << 63), "rows that do not exist were removed"),
    "offsets begin late": (put("offsets", 0, 1), "offsets do not ascend from 0"),
    "offsets descend": (put("offsets", 50, 10**6), "offsets do not ascend from 0"),
    "offsets negative": (put("offsets", 1, -5), "offsets do not ascend from 0"),
    "offsets end elsewhere": (put("offsets", -1, 0), "offsets do not ascend from 0"),
    "no offsets": (replaced("offsets", lambda a: a[:0]), "offsets do not ascend from 0"),
    "fewer documents": (
        both(replaced("offsets", lambda a: np.delete(a, 1)), replaced("bounds", lambda a: a[:, 1:])),
        "other encodings than documents",
    ),
    "no codes": (replaced("codes", lambda a: a[:3]), "codes are missing"),
    "wider codes": (replaced("codes", lambda a: np.pad(a, ((0, 0), (0, 4)))), "has section 'codes' as"),
    "fewer sums": (replaced("sums", lambda a: a[:-1]), "has section 'sums' as"),
    "sums too large": (put("sums", 3, 2**31 - 1), "sums of codes beyond"),
    "sums too small": (put("sums", 3, -(2**31)), "sums of codes beyond"),
    "fewer scales": (replaced("scales", lambda a: a[:-1]), "has section 'scales' as"),
    "fewer bounds": (replaced("bounds", lambda a: a[:, :-1]), "has section 'bounds' as"),
    "fewer tokens": (replaced("tokens", lambda a: a[:-1]), "has section 'tokens' as"),
    "encodings that overlap": (put("encodings.segments", (0, 1), 1), "encodings out of order"),
    "encodings with ids": (put("encodings.segments", (0, 2), 1), "ids are missing"),
    "encodings without a center": (without("encodings.center"), "lacks section 'encodings.center'"),
    "encodings far away": (put("encodings.center", 0, np.inf), "a center beyond"),
    "no encoder": (without("encoder"), "lacks 'encoder' in its metadata"),
    "encoder a list": (meta(encoder=[]), "is no valid MultiVectorIndex: list indices"),
    "encoder without a seed": (lambda given, _: given["encoder"].pop("seed"), "lacks 'seed'"),
    "encoder with more": (encoder(more=1), "has metadata that no MultiVectorIndex writes"),
    "other seed": (encoder(seed=2), "has metadata that no MultiVectorIndex writes"),
    "other fingerprint": (encoder(fingerprint="0" * 16), "has metadata that no MultiVectorIndex writes"),
    "other dims": (encoder(dim=24), "has section"),
    "no dims": (encoder(dim=0), "dim must be at least 1"),
    "huge dims": (encoder(dim=2**31 - 1), "asks for tables of"),
    "dims beyond all": (encoder(dim=10**19), "dim must be between"),
    "many repetitions": (encoder(num_repetitions=2**31 - 1), "asks for tables of"),
    "many partitions": (encoder(num_simhash_projections=30), "are too long for an index|at most 2147483647"),
    "more partitions": (encoder(num_simhash_projections=31), "num_simhash_projections must be between"),
    "large sketch": (encoder(num_simhash_projections=24, final_projection_dim=5), "asks for tables of"),
    "fit missing": (encoder(fitted=True), "lacks section 'encoder.mean'"),
    "filled": (encoder(fill_empty_partitions=True), "has metadata that no MultiVectorIndex writes"),
}
FIT: dict[str, tuple[Change, str]] = {
    "fit unknown": (encoder(fitted=False), "has metadata|has a section"),
    "fit of other dims": (encoder(dim=16), "has section 'encoder.mean' as"),
    "fit that fills": (encoder(fill_empty_partitions=True), "leaves empty partitions empty"),
    "fit not finite": (put("encoder.planes", (0, 0), np.nan), "planes holds nan"),
    "fit changed": (put("encoder.mean", 0, 9), "has metadata that no MultiVectorIndex writes"),
}
STRINGS: dict[str, tuple[Change, str]] = {
    "not UTF-8": (put("ids.text", 0, 0xFF), "codec can't decode"),
    "cut within a character": (put("ids.ends", 2, 2), "codec can't decode"),
    "ends descend": (put("ids.ends", 3, 10**6), "ids.ends do not ascend"),
    "ends early": (put("ids.ends", -1, 3), "ids.ends do not ascend"),
    "fewer": (replaced("ids.ends", lambda a: np.delete(a, 1)), "other ids than documents"),
    "the same twice": (
        both(replaced("ids.ends", lambda a: a * 0), replaced("ids.text", lambda a: a[:0])),
        "an id is there twice",
    ),
}
HOSTILE = [
    (make, fill, name, change, match)
    for make, fill, some in (
        ("ip", "changed", NESTED),
        ("pca", "65", TRANSFORM),
        ("permuted", "65", PERMUTED),
        ("hadamard", "65", HADAMARD),
        ("block-pca", "65", BY_LEVEL),
        ("binary", "changed", BINARY),
        ("documents", "changed", DOCUMENTS),
        ("documents int8", "changed", FIT),
        ("documents", "named", STRINGS),
    )
    for name, (change, match) in some.items()
]


@pytest.mark.parametrize(("make", "fill", "change", "match"), [
    pytest.param(make, fill, change, match, id=f"{make}-{name}") for make, fill, name, change, match in HOSTILE
])  # fmt: skip
def test_hostile_files(make: str, fill: str, change: Change, match: str, tmp_path: Path) -> None:
    """Their checksums are right: nothing but the checks of what they say stands between them and a wrong answer."""
    kind, given, sections = apart(files.to_bytes(FILL[fill](MAKE[make]())))
    change(given, sections)
    (tmp_path / "x").write_bytes(together(kind, given, sections))
    for how in OPENINGS:
        if how.get("verify") == "header" and "twice" in match:
            continue  # as said: that finds no damage to arrays
        with pytest.raises(FileError, match=f"^{tmp_path}/x .*({match})"):
            nv.load(tmp_path / "x", **how)


@pytest.mark.parametrize(("make", "version"), [("ip", (1, 1)), ("pca", (1, 0)), ("binary", (1, 1))])
def test_versions_are_the_oldest(make: str, version: tuple[int, int]) -> None:
    """A file that says another version than the oldest that knows all that is in it is refused."""
    data = files.to_bytes(changed(MAKE[make]()))
    assert storage.open_file(data).version == {"pca": (1, 1)}.get(make, (1, 0))
    with pytest.raises(FileError, match="another version of the format than what is in it"):
        nv.load(together(*apart(data), version))


@pytest.mark.parametrize("depth", [100, 900, 950, 970, 980, 990, 1000])
def test_deep_metadata(depth: int) -> None:
    kind, given, sections = apart(files.to_bytes(MAKE["ip"]()))
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    try:
        data = together(kind, given | {"more": deep}, sections)
    except RecursionError:
        pytest.skip("cannot even be written")
    with pytest.raises(FileError):
        nv.load(data)


def test_putting_together_changes_nothing() -> None:
    for make in MAKE.values():
        data = files.to_bytes(changed(make()))
        assert together(*apart(data)) == data


def test_rows_that_were_removed_may_have_any_id(tmp_path: Path) -> None:
    index = MAKE["ip"]()
    add(index, 0, 3, [5, 6, 7])
    index.remove([6])
    add(index, 3, 4, [6])
    other = nv.load(files.to_bytes(index))
    same(answers(other), answers(index))
    other.remove([6])
    assert other.ids.tolist() == [5, 7]


def test_a_reader_of_the_documentation() -> None:
    """docs/format.md, taken literally, finds every row by its id."""
    index = changed(nv.NestedIndex(D, (6,), codes=("b1", "i4"), center=False))
    _, given, sections = apart(files.to_bytes(index))
    bounds = [0, *given["levels"]]
    found, slot, row, at = {}, 0, 0, 0
    for n, base, listed in sections["segments"].tolist():
        room = -(-n // 64) * 64
        for r in range(n):
            removed = int(sections["removed"][(slot + r) // 64]) >> (slot + r) % 64 & 1
            if not removed:
                found[int(sections["ids"][at + r]) if listed else base + r] = slot, room, r, row + r
        slot, row, at = slot + room, row + n, at + n * listed
    assert sorted(found) == sorted(index.ids.tolist())
    for one, (first, room, r, place) in found.items():
        x = sections["rows"][place]
        np.testing.assert_array_equal(x, index.reconstruct(one))
        bits, codes, halves = [], [], []
        word, byte, half = 0, 0, 0  # where the level begins, in elements of a row
        for begin, end in itertools.pairwise(bounds):
            words, wide, high = -(-(end - begin) // 64), -(-(end - begin) // 4) * 4, -(-(end - begin) // 8) * 4
            for j in range(end - begin):
                of_word = first * 2 + room * word + r // 64 * 64 * words + j // 64 * 64 + r % 64
                bits.append(int(sections["signs"][of_word]) >> (63 - j % 64) & 1)
                line = first * 24 + room * byte + r // 16 * 16 * wide + j // 4 * 64 + r % 16 * 4 + j % 4
                codes.append(int(sections["codes"][line]) - 128)
                line = first * 12 + room * half + r // 16 * 16 * high + j // 8 * 64 + r % 16 * 4 + j % 4
                halves.append(int(sections["nibbles"][line]) >> (j % 8 // 4 * 4) & 15)
            word, byte, half = word + words, byte + wide, half + high
        scale = sections["stats"][first * 6 + r]
        np.testing.assert_array_equal(bits, x > 0)
        np.testing.assert_allclose(np.asarray(codes) * scale, x, atol=0.51 * scale)
        np.testing.assert_array_equal(halves, np.asarray(codes) + 128 >> 4)
