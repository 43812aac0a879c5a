"""Indexes as files: what each kind writes, and indexes from files whose every statement has been checked.

docs/format.md lists the sections. A loaded index trusts nothing of a file: what sizes follow from is checked before an
array is asked for, an array has the shape that follows, and numbers that kernels or later changes rely on are in range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import arrays, parallel, storage
from .bags import CodedBags, behind
from .binary import BinaryIndex, BitSegment
from .collection import PLANS, Collection
from .container import Container, Contents, Stored
from .fitting import Fit
from .ids import CHUNK, NOTHING, Directory, Identified, living
from .index import NestedIndex
from .multivector import Contents as Documents
from .multivector import MultiVectorIndex
from .muvera import MAX_BITS, MAX_SIZE, FixedDimensionalEncoder
from .plan import Plan
from .planes import (
    BLOCK,
    OVERREAD,
    NibblePlane,
    Segment,
    SignPlane,
    Words,
    copy_rows,
    level_starts,
    level_views,
    level_widths,
    padded,
)
from .replacing import replacing
from .storage import File, Part, array_part
from .tokens import STORED as STORED_TOKENS
from .tokens import Store, TokenSegment
from .tombstones import WORD, Tombstones, from_bools, to_bools
from .transform import Transform

Array = npt.NDArray[Any]
Pieces = dict[str, list[Array]]

SINCE = {"plans": (1, 1), "transform": (1, 1)}  # what metadata may have besides, and the version it came with
MAX_SEGMENTS = 65_536
LARGEST_CENTER = 1e42  # what rotated float32 vectors cannot exceed
TABLES = 32 * 2**20  # bytes that drawing an encoder may take beyond those of the file: some tenths of a second


def load(path: Any, *, mmap: bool = False, verify: str = "full") -> NestedIndex | BinaryIndex | MultiVectorIndex:
    """The index that a file holds; its answers are those of the index that was saved, bit for bit.

    Parameters
    ----------
    path : str, path-like, or bytes-like
        A file made by ``save``, or what is in one.
    mmap : bool
        Whether arrays stay in the file and are read when a search needs them: opening takes milliseconds, and processes
        share the memory. The index can be changed all the same; changes are kept in memory, the file stays as it is.
        Map only files that nobody else can write to.
    verify : {"full", "header"}
        ``"full"`` finds any damage. ``"header"`` checks what memory safety needs, and may give wrong answers if the
        file is damaged.

    Returns
    -------
    NestedIndex, BinaryIndex or MultiVectorIndex

    Raises
    ------
    FileError
        A file that is damaged, cut short, of a newer format, or none of nestvec's. Also by calls of an index that is
        mapped, once its file was shortened or written to.
    OSError
        As `open`; IsADirectoryError for a directory.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import nestvec as nv
    >>> index = nv.NestedIndex(64)
    >>> index.add(np.eye(64))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index.save(f"{folder}/units.nv")
    ...     nv.load(f"{folder}/units.nv").search(np.eye(64)[:1], 1)[1].tolist()
    [[0]]
    """
    file = storage.open_file(path, mmap=mmap, verify=verify)
    try:
        index = restored(file)
    except BaseException:
        file.close()
        raise
    if mmap:
        index._file = file
    else:
        file.close()
    return index


def restored(file: File) -> NestedIndex | BinaryIndex | MultiVectorIndex:
    """The index that an opened file holds; FileError if it holds none."""
    if file.kind not in KINDS:
        raise file.error(f"holds a {file.kind}, which this nestvec does not know; upgrade nestvec")
    kind = KINDS[file.kind]
    with _refusing(file):
        index: NestedIndex | BinaryIndex | MultiVectorIndex = kind.restored(file)
        if "plans" in file.meta:
            index._plans = _read_plans(index, file)
        if storage.meta_text(_described(kind, index, index._contents)) != storage.meta_text(file.meta):
            raise file.error(f"has metadata that no {file.kind} writes")
        _need(file, file.version == version_of(file.meta), "another version of the format than what is in it")
    file.finish()
    file.check_unchanged()
    return index


def save(index: Any, path: Any) -> None:
    """Write an index to a file, wholly or not at all."""
    contained = _contained(index)
    with replacing(path) as target:
        storage.write_to(target, *contained, version_of(contained[1]))
        index._refuse_changed()


def to_bytes(index: Any) -> bytes:
    """What `save` writes."""
    contained = _contained(index)
    data = storage.to_bytes(*contained, version_of(contained[1]))
    index._refuse_changed()
    return data


def version_of(meta: dict[str, Any]) -> tuple[int, int]:
    """The oldest version of the format that knows all that is in a file with such metadata."""
    return max((SINCE.get(key, storage.OLDEST) for key in meta), default=storage.OLDEST)


def _contained(index: Any) -> tuple[str, dict[str, Any], list[Part]]:
    index._refuse_changed()
    name, kind = next((name, kind) for name, kind in KINDS.items() if isinstance(index, kind.type))
    contents = index._contents  # once: others may replace it meanwhile
    return name, _described(kind, index, contents), kind.parts(index, contents)


def _described(kind: _Kind, index: Any, contents: Any) -> dict[str, Any]:
    """An index's metadata, with its plans if there are any."""
    plans = [plan.to_dict() for plan in index._plans]
    return kind.described(index, contents) | ({"plans": plans} if plans else {})


def _read_plans(index: Any, file: File) -> tuple[Plan, ...]:
    given = file.meta["plans"]
    _need(file, isinstance(given, list) and 0 < len(given) <= PLANS, "another number of plans")
    plans, most = tuple(map(Plan.from_dict, given)), index._width(None)
    for plan in plans:
        _need(file, max(plan.dims, *(stage.dims or 1 for stage in plan), 1) <= most, "plans for other dims")
    return plans


@contextmanager
def _refusing(file: File) -> Iterator[None]:
    """What checks of arguments say against a file is a FileError."""
    try:
        yield
    except storage.FileError:
        raise
    except KeyError as error:
        raise file.error(f"lacks {error} in its metadata") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise file.error(f"is no valid {file.kind}: {error}") from None


def _need(file: File, condition: Any, what: str) -> None:
    if not condition:
        raise file.error(f"is no valid {file.kind}: {what}")


# Rows in segments


def _runs(plane: Array, starts: Array, widths: Array) -> list[Array]:
    """The levels of a plane by blocks of rows."""
    return [level.reshape(len(level), -1) for level in level_views(plane, starts, widths, BLOCK)]


def _columns(values: Array, each: int = BLOCK) -> list[Array]:
    """An array (..., capacity) by blocks of rows, of which each has so many values."""
    return [run.reshape(-1, each) for run in values.reshape(-1, values.shape[-1])]


def _rows_of(segment: Segment | BitSegment) -> Array:
    return np.empty((0, 0)) if isinstance(segment, BitSegment) else segment.rows


def _pieces(segment: Segment | BitSegment, bounds: Array) -> Pieces:
    """What a segment consists of besides rows and ids, as runs (blocks of 64 rows, values of a block)."""
    if isinstance(segment, BitSegment):
        return {"words": _runs(segment.words.words, segment.words.starts, level_widths(bounds, 64) // 64)}
    found: Pieces = {}
    if len(segment.codes):
        plane = segment.codes[: len(segment.codes) - OVERREAD]
        found["codes"] = _runs(plane, segment.starts, level_widths(bounds, 4))
        found["stats"], found["blocks"] = _columns(segment.stats), _columns(segment.blocks, 1)
    if segment.signs is not None:
        words = segment.signs.words
        found["signs"] = _runs(words.words, words.starts, level_widths(bounds, 64) // 64)
        found["signs.factors"] = _columns(segment.signs.factors)
    if segment.nibbles is not None:
        found["nibbles"] = _runs(segment.nibbles.nibbles, segment.nibbles.starts, level_widths(bounds, 8) // 2)
        found["nibbles.factors"] = _columns(segment.nibbles.factors)
    return found


def _row_parts(index: Container[Any], contents: Contents[Any], prefix: str = "") -> list[Part]:
    """Sections of segments, one behind the other, each as if it had room for its rows up to a whole block."""
    stored = contents.stored
    if len(stored) > MAX_SEGMENTS:
        raise ValueError(f"an index of {len(stored)} segments cannot be saved; call compact() first")
    table = np.asarray([(n, s.base, s.ids.size > 0) for s, n, _ in stored], np.int64).reshape(-1, 3)
    parts = [array_part(prefix + "segments", table)]
    template = index._allocate(BLOCK, NOTHING, 0)
    rows = _rows_of(template)
    if len(rows):
        shape = (sum(n for _, n, _ in stored), rows.shape[1])
        parts.append(Part(prefix + "rows", rows.dtype.name, shape, (s.rows[:n] for s, n, _ in stored)))
    blocks = sum(padded(n, BLOCK) for _, n, _ in stored) // BLOCK
    pieces = [_pieces(one.segment, index._bounds) for one in stored]
    tails = [_pieces(_tail(index, one), index._bounds) if one.n % BLOCK else None for one in stored]
    for name, runs in _pieces(template, index._bounds).items():
        ends = [np.zeros(OVERREAD, np.uint8)] if name == "codes" else []
        size = blocks * sum(run.shape[1] for run in runs) + sum(map(len, ends))
        buffers = chain(*map(partial(_trimmed, name), stored, pieces, tails), ends)
        parts.append(Part(prefix + name, runs[0].dtype.name, (size,), buffers))
    return parts


def _trimmed(name: str, one: Stored[Any], pieces: Pieces, tail: Pieces | None) -> Iterator[Array]:
    """One of a segment's pieces, less the room behind its rows."""
    for number, run in enumerate(pieces[name]):
        yield run[: one.n // BLOCK]
        if tail is not None:
            yield tail[name][number]


def _tail(index: Container[Any], one: Stored[Any]) -> Any:
    """A copy of the rows behind the last whole block, with zeros behind them: who adds may be writing there."""
    tail = index._allocate(BLOCK, NOTHING, 0)
    for run in chain(*_pieces(tail, index._bounds).values()):
        run[:] = 0
    left = one.n % BLOCK
    copy_rows(index._views(one.segment), np.arange(one.n - left, one.n), index._views(tail), 0)
    tail.settle(left)
    return tail


def _id_parts(contents: Contents[Any]) -> list[Part]:
    """Sections of ids that are listed, and of which rows were removed."""
    listed = [(s.ids, n) for s, n, _ in contents.stored if s.ids.size]
    parts = [Part("ids", "int64", (sum(n for _, n in listed),), (ids[:n] for ids, n in listed))]
    return [*parts, _removed_part(contents, [(first, n) for first, (_, n, _) in contents.placed()])]


def _removed_part(contents: Identified, placed: list[tuple[int, int]]) -> Part:
    """A bitmap of the slots removed, of runs that begin at a block; nothing if there are none."""
    words: list[Array] = []
    if contents.tombstones:
        alive = contents.tombstones.alive(contents.room)
        words = [from_bools(~to_bools(alive[first // WORD :], n)) for first, n in placed]
    return Part("removed", "uint64", (sum(map(len, words)),), words)


class _Run(NamedTuple):
    """A segment that is to be read: its first block and row, how many rows count, and their ids."""

    block: int
    row: int
    n: int
    ids: Array
    base: int

    @property
    def blocks(self) -> int:
        return padded(self.n, BLOCK) // BLOCK


def _read_rows(index: Container[Any], file: File, ids: Array, prefix: str = "") -> tuple[Stored[Any], ...]:
    """Segments of `_row_parts`; nothing will be added to them."""
    runs = _read_runs(file, prefix, ids)
    template = index._allocate(BLOCK, NOTHING, 0)
    blocks, total = sum(run.blocks for run in runs), sum(run.n for run in runs)
    rows = _rows_of(template)
    if len(rows):
        rows = file.array(prefix + "rows", rows.dtype, (total, rows.shape[1]))
    sections: dict[str, tuple[Array, int, int]] = {}  # elements, how many a block has, and how many more are read
    for name, some in _pieces(template, index._bounds).items():
        each, more = sum(run.shape[1] for run in some), OVERREAD if name == "codes" else 0
        sections[name] = file.array(prefix + name, some[0].dtype, (blocks * each + more,)), each, more
    stored = []
    for run in runs:
        cut = {
            name: section[run.block * each : (run.block + run.blocks) * each + more]
            for name, (section, each, more) in sections.items()
        }
        segment = _segment(index, rows[run.row : run.row + run.n], cut, run)
        stored.append(Stored(segment, run.n, sealed=True))
    return tuple(stored)


def _read_runs(file: File, prefix: str, ids: Array) -> list[_Run]:
    """Runs of the table of segments, whose ids, where listed, are the next ones of `ids`."""
    table = file.array(prefix + "segments", np.int64, (None, 3))
    _need(file, len(table) <= MAX_SEGMENTS, f"{len(table)} segments are too many")
    runs: list[_Run] = []
    block = row = at = 0
    for n, base, listed in table.tolist():
        _need(file, 1 <= n <= arrays.MAX_ROWS and base >= 0 and listed in (0, 1), "an impossible segment")
        _need(file, not listed or (base == 0 and at + n <= len(ids)), "ids are missing")
        runs.append(_Run(block, row, n, ids[at : at + n] if listed else NOTHING, base))
        block, row, at = block + runs[-1].blocks, row + n, at + n * listed
    _need(file, at == len(ids), "more ids than rows")
    return runs


def _segment(index: Container[Any], rows: Array, some: dict[str, Array], run: _Run) -> Any:
    """A segment of pieces, the runs of each joined."""
    bounds, capacity = index._bounds, run.blocks * BLOCK
    levels = len(bounds)

    def starts(multiple: int, share: int) -> Array:
        return level_starts(level_widths(bounds, multiple) // share, capacity)

    if isinstance(index, BinaryIndex):
        return BitSegment(Words(some["words"], starts(64, 64), bounds), capacity, run.ids, run.base)
    if "codes" in some:
        stats, blocks = some["stats"].reshape(3 * levels, capacity), some["blocks"].reshape(2 * levels, run.blocks)
        segment = Segment(rows, some["codes"], starts(4, 1), stats, blocks, run.ids, run.base)
    else:
        segment = Segment.unpacked(rows, run.ids, run.base, capacity)
    if "signs" in some:
        factors = some["signs.factors"].reshape(3, levels, capacity)
        segment = replace(segment, signs=SignPlane(Words(some["signs"], starts(64, 64), bounds), factors))
    if "nibbles" in some:
        factors = some["nibbles.factors"].reshape(3, levels, capacity)
        segment = replace(segment, nibbles=NibblePlane(some["nibbles"], starts(8, 2), factors, bounds))
    return segment


def _read_contents(index: Container[Any], file: File, next_id: Any, frame: Any) -> Contents[Any]:
    """Contents of `_row_parts` and `_id_parts`."""
    next_id = arrays.integer(next_id, "next_id", 0, 2**63)
    ids = file.array("ids", np.int64, (None,))
    stored = _read_rows(index, file, ids)
    contents = Contents(stored, next_id, Tombstones(), frame)
    removed = _read_removed(file, [(first, n) for first, (_, n, _) in contents.placed()], contents.room)
    contents = contents._replace(tombstones=removed)
    _check_ids(file, contents)
    return contents


def _read_removed(file: File, placed: list[tuple[int, int]], room: int) -> Tombstones:
    words = file.array("removed", np.uint64, (None,))
    _need(file, len(words) in (0, room // WORD), "as many bits as rows must say which were removed")
    found = []
    for first, n in placed:
        some = words[first // WORD : padded(first + n, WORD) // WORD]
        rows = np.flatnonzero(to_bools(some, len(some) * WORD))
        _need(file, len(rows) == 0 or rows[-1] < n, "rows that do not exist were removed")
        found.append(first + rows)
    slots = np.concatenate([NOTHING, *found])
    return Tombstones().plus(slots) if len(slots) else Tombstones()


def _check_ids(file: File, contents: Contents[Any] | Documents) -> None:
    """Ids are in range; unless only headers are to be verified, all that are not removed differ."""
    end = 0
    for run in sorted((run for run in contents.runs if not len(run.ids)), key=lambda run: run.base):
        _need(file, end <= run.base and run.base + run.n <= contents.next_id, "ids of rows overlap")
        end = run.base + run.n
    listed = [run for run in contents.runs if len(run.ids)]
    strings = any(run.ids.dtype == object for run in listed)
    for run in listed:
        inside = strings or (run.ids.min() >= 0 and int(run.ids.max()) < contents.next_id)
        _need(file, inside, "ids are out of range")
    if listed and file.full:
        ids = living(contents)
        distinct = len(set(ids.tolist())) if strings else _distinct(ids)
        _need(file, distinct == len(ids), "an id is there twice")


def _distinct(ids: Array) -> int:
    """How many different ids there are."""
    ids = np.sort(ids)
    return len(ids) - int((ids[1:] == ids[:-1]).sum())


# NestedIndex


def _nested_meta(index: NestedIndex, contents: Contents[Any]) -> dict[str, Any]:
    transform = index.transform
    return {
        "d": index.d,
        "levels": list(index.levels),
        "metric": index.metric,
        "rows": index.rows,
        "codes": list(index.codes),
        "center": index._center,
        "rotate": index._empty.frame.rotation is not None,
        "next_id": contents.next_id,
        **({} if transform is None else {"transform": transform._described()}),
    }


def _nested_parts(index: NestedIndex, contents: Contents[Any]) -> list[Part]:
    center = array_part("center", contents.frame.center)
    held = {} if index.transform is None else index.transform._sections()
    through = [array_part(name, array) for name, array in held.items()]
    return [center, *through, *_id_parts(contents), *_row_parts(index, contents)]


def _nested(file: File) -> NestedIndex:
    meta = file.meta
    index = NestedIndex(
        meta["d"],
        meta["levels"],
        meta["metric"],
        meta["rows"],
        codes=meta["codes"],
        center=meta["center"],
        rotate=meta["rotate"],
        transform=Transform._restored(meta["transform"], meta["d"], file.array) if "transform" in meta else None,
    )
    index._contents = _read_contents(index, file, meta["next_id"], _read_frame(index, file, "center"))
    return index


def _read_frame(index: NestedIndex, file: File, name: str) -> Any:
    center = np.array(file.array(name, np.float64, (index.d,)))
    _need(file, (np.abs(center) <= LARGEST_CENTER).all(), "a center beyond that of any vectors")
    return replace(index._empty.frame, center=center)


# BinaryIndex


def _binary_meta(index: BinaryIndex, contents: Contents[Any]) -> dict[str, Any]:
    return {
        "bits": index.bits,
        "levels": list(index.levels),
        "thresholds": index._thresholds.dtype.name,
        "next_id": contents.next_id,
    }


def _binary_parts(index: BinaryIndex, contents: Contents[Any]) -> list[Part]:
    thresholds = array_part("thresholds", np.ascontiguousarray(index._thresholds))
    return [thresholds, *_id_parts(contents), *_row_parts(index, contents)]


def _binary(file: File) -> BinaryIndex:
    meta = file.meta
    bits = arrays.integer(meta["bits"], "bits", 1, arrays.MAX_DIMS)
    stored = arrays.one_of(meta["thresholds"], "thresholds", ("float32", "float64"))
    index = BinaryIndex(bits, meta["levels"], np.array(file.array("thresholds", stored, (bits,))))
    index._contents = _read_contents(index, file, meta["next_id"], None)
    return index


# MultiVectorIndex

IDS = ("positions", "integers", "strings")
PARAMETERS = tuple(f.name for f in fields(FixedDimensionalEncoder) if f.init and f.name != "fit")


def _multi_meta(index: MultiVectorIndex, contents: Documents) -> dict[str, Any]:
    encoder, levels = index.encoder, None
    if not encoder.final_projection_dim:
        levels = [end // encoder.repetition_dim for end in contents.encodings.levels]
    fitted = {"fitted": encoder.fit is not None, "fingerprint": encoder.fingerprint()}
    return {
        "encoder": {name: getattr(encoder, name) for name in PARAMETERS} | fitted,
        "tokens": index.tokens,
        "codes": list(contents.encodings.codes),
        "levels": levels,
        "ids": IDS[0 if contents.names is None else 1 + contents.strings],
        "next_id": contents.next_id,
    }


def _multi_parts(index: MultiVectorIndex, contents: Documents) -> list[Part]:
    encodings = contents.encodings._contents
    parts = [
        *_encoder_parts(index.encoder),
        *_name_parts(contents.names),
        _removed_part(contents, [(0, contents.store.ntotal)]),
        *_token_parts(contents.store, index.tokens, index.encoder.dim),
        array_part("encodings.center", encodings.frame.center),
        *_row_parts(contents.encodings, encodings, "encodings."),
    ]
    tables, size = _table_bytes(_multi_meta(index, contents)["encoder"]), sum(map(storage.part_bytes, parts))
    if tables > TABLES + size:
        raise ValueError(
            f"the encoder draws tables of {tables} bytes, too many to be loaded with an index of {size}; add documents "
            "first, or use fewer repetitions or simhash projections"
        )
    return parts


def _multi(file: File) -> MultiVectorIndex:
    meta = file.meta
    encoder = _encoder(file, meta["encoder"])
    index = MultiVectorIndex(encoder, meta["tokens"], codes=meta["codes"], levels=meta["levels"])
    store = _read_tokens(file, index.tokens, encoder.dim)
    encodings = index._contents.encodings.twin()
    encodings._directory = Directory()
    stored = _read_rows(encodings, file, NOTHING, "encodings.")
    ends = np.cumsum([0, *(one.n for one in stored)]).tolist()
    _need(file, ends[-1] == store.ntotal, "other encodings than documents")
    _need(file, [one.segment.base for one in stored] == ends[:-1], "encodings out of order")
    frame = _read_frame(encodings, file, "encodings.center")
    encodings._contents = Contents(stored, store.ntotal, Tombstones(), frame)
    names = _read_names(file, arrays.one_of(meta["ids"], "ids", IDS), store.ntotal)
    next_id = arrays.integer(meta["next_id"], "next_id", 0, 2**63)
    contents = Documents(store, encodings, names, next_id, Tombstones())
    removed = _read_removed(file, [(0, store.ntotal)], contents.room)
    index._contents = contents._replace(tombstones=removed)
    _check_ids(file, index._contents)
    return index


def _encoder_parts(encoder: FixedDimensionalEncoder) -> list[Part]:
    fit = encoder.fit
    return [] if fit is None else [array_part(f"encoder.{f.name}", getattr(fit, f.name)) for f in fields(Fit)]


def _encoder(file: File, given: dict[str, Any]) -> FixedDimensionalEncoder:
    tables = _table_bytes(given)
    _need(file, tables <= TABLES + file.size, f"its encoder asks for tables of {tables} bytes")
    fit = None
    if given["fitted"]:
        d, values = given["dim"], given["num_repetitions"] * (given["projection_dim"] or given["dim"])
        planes = given["num_repetitions"] * given["num_simhash_projections"]
        shapes = {"mean": (d,), "planes": (planes, d), "projection": (d, values)}
        fit = Fit(**{name: file.array(f"encoder.{name}", np.float32, shape) for name, shape in shapes.items()})
    return FixedDimensionalEncoder(**{name: given[name] for name in PARAMETERS}, fit=fit)


def _table_bytes(given: dict[str, Any]) -> int:
    """Bytes that an encoder of such parameters takes to draw its tables, and a generator for each repetition."""
    d, repetitions, final, width = (
        arrays.integer(given[name] or 0, name, 0, MAX_SIZE)
        for name in ("dim", "num_repetitions", "final_projection_dim", "projection_dim")
    )
    k = arrays.integer(given["num_simhash_projections"], "num_simhash_projections", 0, MAX_BITS)
    size = repetitions * (width or d) << k
    return repetitions * (20 * k * d + 4 * d + 4096) + (8 * size if final else 0)


def _name_parts(names: Array | None) -> list[Part]:
    if names is None:
        return []
    if names.dtype != object:
        return [array_part("ids", names)]
    texts = [_utf8(name) for name in names.tolist()]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return [array_part("ids.text", np.frombuffer(b"".join(texts), np.uint8)), array_part("ids.ends", ends)]


def _utf8(name: str) -> bytes:
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"id {name!r} cannot be saved: it is no text that UTF-8 can hold") from None


def _read_names(file: File, kind: str, count: int) -> Array | None:
    if kind == "positions":
        return None
    if kind == "integers":
        return np.array(file.array("ids", np.int64, (count,)))
    text = file.array("ids.text", np.uint8, (None,)).tobytes()
    ends = _read_ends(file, "ids.ends", len(text))
    _need(file, len(ends) == count + 1, "other ids than documents")
    names = np.empty(count, object)
    for first in range(0, count, CHUNK):
        parallel.check()
        cuts = pairwise(ends[first : first + CHUNK + 1].tolist())
        names[first : first + CHUNK] = [text[begin:end].decode() for begin, end in cuts]
    return names


def _read_ends(file: File, name: str, last: int) -> Array:
    """Where what follows each other begins, and where it ends; in memory of its own, as kernels rely on it."""
    ends = np.array(file.array(name, np.int64, (None,)))
    ascending = len(ends) > 0 and ends[0] == 0 and ends[-1] == last and (ends[1:] >= ends[:-1]).all()
    _need(file, ascending, f"{name} do not ascend from 0 to {last}")
    return ends


def _token_parts(store: Store, suffix: str, d: int) -> list[Part]:
    """Sections of documents' tokens, all segments as one."""
    width, count = padded(d, 4), store.tokens
    some = [(s, n, int(s.offsets[n])) for s, n in zip(store.segments, store.counts, strict=True)]
    firsts = np.cumsum([0, *(tokens for _, _, tokens in some)]).tolist()
    room = behind(width)
    ends = (s.offsets[1 : n + 1] + first for (s, n, _), first in zip(some, firsts, strict=False))
    parts = [Part("offsets", "int64", (store.ntotal + 1,), chain([np.zeros(1, np.int64)], ends))]
    bounds = (s.coded.bounds[i, :n] for i in range(2) for s, n, _ in some)
    parts.append(Part("bounds", "float32", (2, store.ntotal), bounds))
    if suffix != "i8":
        stored = np.dtype(STORED_TOKENS[suffix]).name
        parts.append(Part("tokens", stored, (count, d), (s.rows[:tokens] for s, _, tokens in some)))
    codes = (s.coded.codes[:tokens] for s, _, tokens in some)
    parts.append(Part("codes", "int8", (count + room, width), chain(codes, [np.zeros((room, width), np.int8)])))
    scales = (s.coded.scales[:tokens] for s, _, tokens in some)
    parts.append(Part("scales", "float32", (count + room,), chain(scales, [np.zeros(room, np.float32)])))
    sums = (s.coded.sums[:tokens] for s, _, tokens in some)
    return [*parts, Part("sums", "int32", (count + room,), chain(sums, [np.zeros(room, np.int32)]))]


def _read_tokens(file: File, suffix: str, d: int) -> Store:
    """One segment of all documents, without room for more."""
    width = padded(d, 4)
    codes = file.array("codes", np.int8, (None, width))
    count = len(codes) - behind(width)
    _need(file, count >= 0, "codes are missing")
    offsets = _read_ends(file, "offsets", count)
    n = len(offsets) - 1
    sums = file.array("sums", np.int32, (len(codes),))
    inside = not len(sums) or max(int(sums.max()), -int(sums.min())) <= 128 * width
    _need(file, inside, "sums of codes beyond what codes have")
    scales, bounds = file.array("scales", np.float32, (len(codes),)), file.array("bounds", np.float32, (2, n))
    rows = codes[:count, :d] if suffix == "i8" else file.array("tokens", STORED_TOKENS[suffix], (count, d))
    segment = TokenSegment(rows, CodedBags(codes, scales, sums, offsets, bounds), suffix)
    return Store((segment,), (n,)) if n else Store()


class _Kind(NamedTuple):
    type: type[Collection[Any]]
    described: Callable[[Any, Any], dict[str, Any]]
    parts: Callable[[Any, Any], list[Part]]
    restored: Callable[[File], Any]


KINDS = {
    "NestedIndex": _Kind(NestedIndex, _nested_meta, _nested_parts, _nested),
    "BinaryIndex": _Kind(BinaryIndex, _binary_meta, _binary_parts, _binary),
    "MultiVectorIndex": _Kind(MultiVectorIndex, _multi_meta, _multi_parts, _multi),
}
