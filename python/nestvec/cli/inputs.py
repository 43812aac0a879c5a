"""Vectors, bags of vectors and ids from files of any of the formats that people have, or from stdin.

The format is told by what a file begins with, not by its name.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO

import click
import numpy as np
import numpy.typing as npt

from .. import arrays
from ..foreign import LOOK, described
from ..storage import MAGIC, FileError
from .formats import Named, npy, npz, parquet

Array = npt.NDArray[Any]

STDIN = "-"
FORMATS = ".npy, .npz, Parquet, or text of one vector a line (a JSON list, or numbers between blanks)"


@dataclass(frozen=True)
class Source:
    """What a file holds: arrays by name, one array without, or lines of text."""

    label: str
    named: Mapping[str, Named] | None = None
    array: Array | None = None
    lines: tuple[str, ...] | None = None
    option: str = "--key"

    def chosen(self, key: str | None, ndim: int, what: str) -> Array:
        """The array of that name, or the only one with so many axes."""
        if self.named is None:
            if key is not None:
                raise click.UsageError(f"{self.label} holds no named arrays; leave out {self.option} {key}")
            assert self.array is not None
            return self.array
        if key is not None:
            if key not in self.named:
                raise click.UsageError(f"{self.label} has no {key!r}; it holds {self.contents()}")
            return self.named[key].read()
        fitting = [name for name, one in self.named.items() if one.ndim == ndim]
        if len(fitting) != 1:
            count = f"{len(fitting)} arrays" if fitting else "no array"
            hint = f"; name one by {self.option}" if fitting else ""
            raise click.UsageError(f"{self.label} holds {count} that may be {what} ({self.contents()}){hint}")
        return self.named[fitting[0]].read()

    def contents(self) -> str:
        """Names, shapes and types."""
        return ", ".join(f"{name}: {one.described}" for name, one in (self.named or {}).items()) or "nothing"


def source(name: str) -> Source:
    """Open a file, or stdin for ``-``.

    Raises
    ------
    OSError
        As `open`.
    FileError
        For a file that is damaged.
    UsageError
        For a format that is none of ours.
    """
    if name == STDIN:
        data = sys.stdin.buffer.read()
        if not data:
            raise click.UsageError("stdin is empty; vectors are needed")
        return _opened("stdin", io.BytesIO(data), None)
    with open(name, "rb") as file:
        return _opened(name, file, name)


def _opened(label: str, file: BinaryIO, path: str | None) -> Source:
    head = file.read(LOOK)
    file.seek(0)
    try:
        if head.startswith(b"\x93NUMPY"):
            return Source(label, array=npy(file, path))
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return Source(label, named=npz(file, path))
        if head.startswith(b"PAR1"):
            return Source(label, named=parquet(label, file, path), option="--column")
    except (ValueError, EOFError, RuntimeError) as error:
        raise FileError(f"{label} cannot be read: {error}") from None
    text = None
    if b"\0" not in head and not head.startswith(MAGIC):
        with suppress(UnicodeDecodeError):
            text = file.read().decode("utf-8-sig")
    if text is None:
        what = "an index of nestvec" if head.startswith(MAGIC) else described(head, 0, lambda first, count: b"")
        raise click.UsageError(f"{label} holds no vectors: {what}; needed: {FORMATS}")
    return Source(label, lines=tuple(text.splitlines()))


def vectors(data: Source, key: str | None, what: str = "vectors") -> Array:
    """Rows (n, d) of a source; a single vector is one row."""
    if data.lines is not None:
        rows = _parsed(data, key)
        wide = [np.atleast_2d(row) for row in rows]
        for (number, first), row in zip(_numbered(data), wide, strict=True):
            if row.shape[1] != wide[0].shape[1]:
                raise click.UsageError(
                    f"{data.label}, line {number}: {row.shape[1]} numbers, the first vector has {wide[0].shape[1]}"
                    f" ({first[:20]!r}...)"
                )
        return np.concatenate(wide)
    array = data.chosen(key, 2, what)
    if array.ndim == 1 and array.dtype.kind in "fiu":
        array = array[None, :]
    if array.ndim != 2 or not array.size:
        raise click.UsageError(f"{data.label} holds an array of shape {array.shape}; {what} (n, d) are needed")
    return array


def bags(data: Source, key: str | None, what: str) -> list[Array]:
    """Bags of token vectors, from ``tokens`` and ``offsets``, (n, m, d), (m, d) or a JSON list of lists a line."""
    if data.lines is not None:
        rows = _parsed(data, key)
        if all(row.ndim == 2 for row in rows):
            return rows
        return [vectors(data, key, what)]
    if data.named is not None and set(_ragged_names(key)) <= data.named.keys():
        tokens, offsets = ragged(data, key)
        return [tokens[first:last] for first, last in pairwise(offsets)]
    array = data.chosen(key, 2, what)
    if array.ndim not in (2, 3):
        raise click.UsageError(
            f"{data.label} holds an array of shape {array.shape}; {what} are token vectors: (m, d) for one, (n, m, d), "
            "or an .npz with tokens (N, d) and offsets (n + 1,)"
        )
    return [array] if array.ndim == 2 else list(array)


def ragged(data: Source, key: str | None) -> arrays.Ragged:
    """``tokens`` (N, d) and ``offsets`` (n + 1,) of a source, or ``KEY_tokens`` and ``KEY_offsets``."""
    names = _ragged_names(key)
    if data.named is None or not set(names) <= data.named.keys():
        held = "no named arrays" if data.named is None else data.contents()
        raise click.UsageError(
            f"{data.label} holds {held}; bags of token vectors are an .npz with {names[0]} (N, d) and {names[1]} "
            f"(n + 1,){'' if key else ', or NAME_tokens and NAME_offsets for --key NAME'}"
        )
    tokens, offsets = (data.named[name].read() for name in names)
    return arrays.ragged((tokens, offsets), data.label)


def _ragged_names(key: str | None) -> tuple[str, str]:
    prefix = f"{key}_" if key else ""
    return f"{prefix}tokens", f"{prefix}offsets"


def ids(name: str, beside: Source | None = None) -> Array:
    """Ids from an array or column of the source they stand beside, if it has one of that name, or from a file."""
    if beside is not None and beside.named is not None and name in beside.named:
        return beside.named[name].read().reshape(-1)
    data = source(name)
    if data.lines is None:
        return data.chosen(None, 1, "ids")
    words = [line.strip() for line in data.lines if line.strip()]
    try:
        return np.asarray([int(word) for word in words], np.int64)
    except (ValueError, OverflowError):
        return np.asarray(words, object)


def _numbered(data: Source) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(data.lines or (), 1) if line.strip()]


def _parsed(data: Source, key: str | None) -> list[Array]:
    """Each line's numbers."""
    if key is not None:
        raise click.UsageError(f"{data.label} is text without names; leave out {data.option} {key}")
    lines = _numbered(data)
    if not lines:
        raise click.UsageError(f"{data.label} holds no vectors; needed: {FORMATS}")
    return [_line(data.label, number, line) for number, line in lines]


def _line(label: str, number: int, line: str) -> Array:
    try:
        if line.lstrip().startswith(("[", "{")):
            row = np.asarray(json.loads(line), np.float64)
        else:
            row = np.asarray([float(word) for word in line.replace(",", " ").split()])
        if row.ndim not in (1, 2) or not row.size:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        shown = line.strip()[:40]
        raise click.UsageError(f"{label}, line {number} is no vector: {shown!r}; needed: {FORMATS}") from None
    return row
