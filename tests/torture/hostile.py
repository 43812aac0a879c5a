"""Damaged and hostile files: number n of those that are made of a file is always the same."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import nestvec as nv
from forging import Sections, apart, together
from nestvec import Stage, storage
from subjects import bits

FIRST = 512  # bytes that are set to 0xFF, one by one
VALUES: list[Any] = [
    0, 1, -1, 2, 7, 20, 63, 64, 65, 1000, 65_536, 2**31 - 1, 2**31, 2**62, 2**63 - 1, 2**63, 10**19, 0.5, 1e300, True,
    False, None, "", "b1", "i4", "f32", "ip", "l2", "cosine", "float16", "integers", "strings", "\0", [], [1], [5, 20],
    ["b1", "i4"], {}, {"a": 1},
]  # fmt: skip


class Mutant:
    """A file that differs from the original; `trusted`: its checksums are right."""

    def __init__(self, original: bytes, number: int) -> None:
        self.random = random.Random(number)
        self.data = bytearray(original)
        self.trusted = number >= FIRST and number % 2 == 1
        if number < FIRST:
            self.data[number] = 0xFF
        elif self.trusted:
            self.data = bytearray(self._forged(original))
        else:
            self.random.choice([self._flip, self._flip, self._cut, self._append, self._swap, self._fill])()

    def _flip(self) -> None:
        for _ in range(self.random.choice([1, 1, 2, 30])):
            self.data[self.random.randrange(len(self.data))] ^= 1 << self.random.randrange(8)

    def _cut(self) -> None:
        del self.data[self.random.randrange(len(self.data)) :]

    def _append(self) -> None:
        self.data += self.random.randbytes(self.random.choice([1, 64, 5000]))

    def _swap(self) -> None:
        """The bytes of two sections."""
        sections = [s for s in storage.open_file(bytes(self.data), verify="header").sections.values() if s.nbytes]
        a, b = self.random.sample(sections, 2)
        size = min(a.nbytes, b.nbytes)
        one, other = slice(a.offset, a.offset + size), slice(b.offset, b.offset + size)
        self.data[one], self.data[other] = self.data[other], self.data[one]

    def _fill(self) -> None:
        first = self.random.randrange(len(self.data))
        size = min(self.random.choice([1, 8, 64, 1000]), len(self.data) - first)
        some = self.random.choice([bytes(size), b"\xff" * size, self.random.randbytes(size)])
        self.data[first : first + size] = some

    def _forged(self, original: bytes) -> bytes:
        """Right checksums over wrong metadata or sections."""
        kind, meta, sections = apart(original)
        meta, kinds = copy.deepcopy(meta), ["NestedIndex", "BinaryIndex", "MultiVectorIndex", "Thing"]
        for _ in range(self.random.choice([1, 1, 1, 2, 3])):
            what = self.random.random()
            if what < 0.35:
                self._change_meta(meta)
            elif what < 0.99:
                name = self.random.choice(list(sections))
                changed = self._changed(sections[name])
                sections[name] = changed
            else:
                kind = self.random.choice(kinds)
        if self.random.random() < 0.05:
            self._rename(sections)
        try:
            return together(kind, meta, sections)
        except ValueError:  # nothing that can be written
            return original

    def _change_meta(self, meta: dict[str, Any]) -> None:
        holder, key = self.random.choice(list(places(meta)))
        what = self.random.random()
        if what < 0.1 and isinstance(holder, dict):
            del holder[key]
        elif what < 0.2 and isinstance(holder, dict):
            holder["more"] = copy.deepcopy(self.random.choice(VALUES))
        elif what < 0.5 and isinstance(holder[key], int):
            holder[key] += self.random.choice([-64, -1, 1, 2, 64])
        else:
            holder[key] = copy.deepcopy(self.random.choice(VALUES))

    def _changed(self, array: np.ndarray) -> np.ndarray:
        what = self.random.random()
        if what < 0.15:
            return self._resized(array)
        if what < 0.2:
            return array.astype(self.random.choice(storage.DTYPES), copy=False)
        if what < 0.3:
            flat = np.frombuffer(self.random.randbytes(array.nbytes), array.dtype)
            return flat.reshape(array.shape)
        changed = array.copy()
        for _ in range(self.random.choice([1, 1, 2, 8])):
            if changed.size:
                changed.flat[self.random.randrange(changed.size)] = self._value(array)
        return changed

    def _resized(self, array: np.ndarray) -> np.ndarray:
        if array.ndim == 0:
            return array[None]
        count = max(0, len(array) + self.random.choice([-64, -1, 1, 64, -len(array), len(array)]))
        return (
            np.resize(array, (count, *array.shape[1:])) if array.size else np.zeros((3, *array.shape[1:]), array.dtype)
        )

    def _value(self, array: np.ndarray) -> Any:
        """One that an element can take, and that is as wrong as can be."""
        if array.dtype.kind == "f":
            large = float(np.finfo(array.dtype).max)
            return self.random.choice([0.0, -1.0, np.nan, np.inf, -np.inf, large, -large, 1e-45, 1e30])
        low, high = int(np.iinfo(array.dtype).min), int(np.iinfo(array.dtype).max)
        near = int(self.random.choice(array.ravel().tolist())) + self.random.choice([-1, 1, 64])
        value = self.random.choice([low, high, 0, 1, near, near, 2**31, 2**32, 63, 64, 65])
        return min(max(value, low), high)

    def _rename(self, sections: Sections) -> None:
        name = self.random.choice(list(sections))
        array = sections.pop(name)
        if self.random.random() < 0.5:
            sections[self.random.choice(["more", name + "x", *sections])] = array


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in metadata, as what holds it and where."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


def answers(index: Any) -> Any:
    """To questions that any index can be asked, whatever its sizes; ValueError for values that cannot be searched."""
    found: list[Any] = [json.dumps(repr(index)), len(index), bits(index.ids)]
    if not len(index):
        return found
    some = index.ids[:: max(len(index) // 5, 1)]
    calls: list[Callable[[], Any]] = [lambda: 5 in index]
    if isinstance(index, nv.MultiVectorIndex):
        q = wave(3, index.encoder.dim)
        calls += [
            lambda: index.search(q, 5, exact=True, threads=1), lambda: index.search(q, 3, candidates=4, threads=1),
            lambda: index.search(q, 3, filter=some, threads=1), lambda: index.reconstruct(some),
            lambda: index.range_search(q, 5.0, threads=1), lambda: index.shortlist([q, q], 3, threads=1),
        ]  # fmt: skip
    elif isinstance(index, nv.BinaryIndex):
        q = nv.pack_bits(wave(3, index.bits))
        calls += [
            lambda: index.search(q, 5, threads=1), lambda: index.search(q, 5, bits=index.levels[0], threads=1),
            lambda: index.search(q, 5, filter=some, threads=1), lambda: index.reconstruct(some),
            lambda: index.range_search(q, index.bits // 2, threads=1),
        ]  # fmt: skip
    else:
        q = wave(3, index.d if index.transform is None else index.transform.d_in)
        calls += list(nested_calls(index, q, some))
    return [*found, *(bits(call()) for call in calls)]


def nested_calls(index: nv.NestedIndex, q: np.ndarray, some: Any) -> Iterator[Callable[[], Any]]:
    if index.rows is not None:
        yield lambda: index.search(q[:1], 5, threads=1)
        yield lambda: index.search(q, 5, threads=1)
        yield lambda: index.search(np.tile(q, (7, 1)), 5, dims=-(-index.d // 2), threads=1)
        yield lambda: index.search(q, 5, filter=some, threads=1)
        yield lambda: index.range_search(q, 0.1, threads=1)
        yield lambda: index.reconstruct(some)
    for code in index.codes:
        plan = [Stage(code, keep=20), Stage(code if index.rows is None else "raw")]
        yield lambda plan=plan: index.search(q, 5, plan=plan, threads=1)
        if code != "i8":
            yield lambda code=code: index.estimate(q, some, code=code)


def wave(count: int, dims: int) -> np.ndarray:
    """Some queries."""
    return np.sin(np.arange(count * dims, dtype=np.float64).reshape(count, dims) * 1.7).astype(np.float32)
