"""The file format of all indexes: named arrays and a small JSON object, every byte under a checksum.

docs/format.md describes it byte by byte. A reader believes nothing: each size is compared with that of the file before
anything is allocated, and what an array must be is said by the one who asks for it.
"""

from __future__ import annotations

import errno
import io
import json
import math
import mmap
import os
import re
import stat
import struct
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from . import arrays, backends, foreign, parallel
from .planes import aligned, padded
from .replacing import replacing

Array = npt.NDArray[Any]

MAGIC = b"\x89NVI\r\n\x1a\n"
OLDEST, VERSION = (1, 0), (1, 1)  # of the format: the first, and the newest that this package knows
BYTE_ORDER = 0x0A0B0C0D
HEADER = struct.Struct("<8sHHIIIQQII32s12sI")
ENTRY = struct.Struct("<48s8sII4QQQ")
ALIGNMENT = 64
BLOCK = 2**20  # bytes that share a checksum
READ = 16 * BLOCK  # read by one thread
MAX_SECTIONS = 65_536
MAX_META = 2**20
META, CHECKSUMS = "meta", "checksums"  # the first section and the last
NAME = re.compile(r"[a-z0-9_.]{1,48}")
KIND = re.compile(r"[A-Za-z0-9_]{1,32}")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
VERIFY = ("full", "header")


class FileError(ValueError):
    """A file that cannot be loaded: damaged, cut short, of a newer format, or none of nestvec's.

    Examples
    --------
    >>> import nestvec as nv
    >>> from nestvec import storage
    >>> try:
    ...     storage.open_file(b"PK\x03\x04...")
    ... except nv.FileError as error:
    ...     print(error)
    bytes given is no nestvec file: a zip archive, as .npz and PyTorch files are
    """


class Part(NamedTuple):
    """A section to write; its bytes come as any number of contiguous arrays of that type."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    buffers: Iterable[Array]


class Section(NamedTuple):
    """Where an array lies in a file, and the number of its first checksum."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    first_sum: int


# Writing


def write(path: Any, kind: str, meta: dict[str, Any], parts: Sequence[Part], version: tuple[int, int] = OLDEST) -> None:
    """Write a file wholly or not at all, see `replacing`; the same arguments give the same bytes.

    Parameters
    ----------
    path : str or path-like
    kind : str
        What the file holds, a class as a rule.
    meta : dict
        JSON without NaN, at most 1 MiB.
    parts : sequence of Part
        Its buffers are asked for one after the other, and none is copied.
    version : (major, minor)
        The oldest that knows all of this.
    """
    with replacing(path) as file:
        write_to(file, kind, meta, parts, version)


def to_bytes(kind: str, meta: dict[str, Any], parts: Sequence[Part], version: tuple[int, int] = OLDEST) -> bytes:
    """What `write` writes."""
    file = io.BytesIO()
    write_to(file, kind, meta, parts, version)
    return file.getvalue()


def array_part(name: str, array: Array) -> Part:
    """A section of one array."""
    return Part(name, array.dtype.name, array.shape, [array])


def meta_text(meta: dict[str, Any]) -> bytes:
    """Metadata as they are written."""
    return json.dumps(meta, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def part_bytes(part: Part) -> int:
    """Bytes of a section."""
    return _nbytes(part.dtype, part.shape)


def write_to(
    file: BinaryIO, kind: str, meta: dict[str, Any], parts: Sequence[Part], version: tuple[int, int] = OLDEST
) -> None:
    """What `write` writes, at the beginning of a new file."""
    text = meta_text(meta)
    if len(text) > MAX_META or not KIND.fullmatch(kind):
        raise ValueError(f"metadata of {len(text)} bytes for {kind!r} cannot be written")
    parts = [array_part(META, np.frombuffer(text, np.uint8)), *parts]
    if not all(NAME.fullmatch(part.name) and part.dtype in DTYPES for part in parts) or len(parts) >= MAX_SECTIONS:
        raise ValueError(f"{len(parts)} sections of these names and types cannot be written")
    shapes = [(part.name, part.dtype, part.shape) for part in parts]
    blocks = sum(_blocks(_nbytes(dtype, shape)) for _, dtype, shape in shapes)
    sections = _laid_out([*shapes, (CHECKSUMS, "uint32", (blocks,))])
    file.write(bytes(sections[0].offset))  # the header is written last
    sums: list[int] = []
    for part, section in zip(parts, sections, strict=False):
        sums += _write_section(file, part, section)
        file.write(bytes(-section.nbytes % ALIGNMENT))
    written = np.asarray(sums, "<u4").tobytes()
    file.write(written)
    file.seek(0)
    file.write(_header(kind, sections, _crc(written), version))


def _write_section(file: BinaryIO, part: Part, section: Section) -> Iterator[int]:
    """Write it; the checksums of its blocks."""
    left, crc, total = BLOCK, 0, 0
    for buffer in part.buffers:
        if buffer.dtype != part.dtype or not buffer.flags.c_contiguous:
            raise ValueError(f"section {part.name!r} needs contiguous {part.dtype}, got {buffer.dtype}")
        data = buffer.reshape(-1).view(np.uint8)
        total += len(data)
        while len(data):
            some, data = data[:left], data[left:]
            crc, left = _crc(some, crc), left - len(some)
            file.write(some.data)
            if left == 0:
                parallel.check()
                yield crc
                left, crc = BLOCK, 0
    if left < BLOCK:
        yield crc
    if total != section.nbytes:
        raise ValueError(f"section {part.name!r} of {part.shape} needs {section.nbytes} bytes, got {total}")


def _laid_out(shapes: Sequence[tuple[str, str, tuple[int, ...]]]) -> list[Section]:
    """One after the other, each at the next multiple of 64."""
    sections: list[Section] = []
    end, sums = HEADER.size + ENTRY.size * len(shapes), 0
    for name, dtype, shape in shapes:
        nbytes = _nbytes(dtype, shape)
        sections.append(Section(name, dtype, shape, padded(end, ALIGNMENT), nbytes, sums))
        end, sums = sections[-1].offset + nbytes, sums + _blocks(nbytes)
    return sections


def _header(kind: str, sections: Sequence[Section], sums: int, version: tuple[int, int] = OLDEST) -> bytes:
    table = b"".join(
        ENTRY.pack(
            s.name.encode(), s.dtype.encode(), len(s.shape), 0, *s.shape, *[0] * (4 - len(s.shape)), s.offset, s.nbytes
        )
        for s in sections
    )
    fields = (
        MAGIC, *version, BYTE_ORDER, HEADER.size + len(table), len(sections), sections[-1].offset + sections[-1].nbytes,
        0, BLOCK, sums, kind.encode(), b"",
    )  # fmt: skip
    crc = _crc(table, _crc(HEADER.pack(*fields, 0)[:-4]))
    return HEADER.pack(*fields, crc) + table


def _nbytes(dtype: str, shape: Sequence[int]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _blocks(nbytes: int) -> int:
    return -(-nbytes // BLOCK)


def _crc(data: bytes | Array, seed: int = 0) -> int:
    values = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    return int(backends.current().crc32c(values, seed))


# Reading


def open_file(source: Any, *, mmap: bool = False, verify: str = "full") -> File:
    """Open a file, or bytes that hold one, having checked its header, its table and its metadata.

    Parameters
    ----------
    source : str, path-like, or bytes-like
    mmap : bool
        Whether arrays are views of the file, read when they are used. The file must be a path.
    verify : {"full", "header"}
        Whether all checksums are compared: with `mmap` here, otherwise as arrays are read.

    Raises
    ------
    FileError
        Anything but an undamaged file of a format that this version knows.
    OSError
        As `open`; IsADirectoryError for a directory.
    """
    arrays.one_of(verify, "verify", VERIFY)
    if isinstance(source, (str, os.PathLike)):
        data: _Disk | _Memory = _Disk(os.fsdecode(source))
    else:
        data = _Memory(source)
    try:
        return File(data, mmap, verify == "full")
    except BaseException:
        data.close()
        raise


class File:
    """An opened file: what it holds by name."""

    def __init__(self, data: _Disk | _Memory, mapped: bool, full: bool) -> None:
        self._data, self.full = data, full
        self.label, self.size = data.label, data.size
        header = _checked_header(data)
        self.kind, self.version = header.kind, header.version
        self.sections = {section.name: section for section in header.sections}
        self._sums = self._read_sums(header.sums)
        self._seen = {META, CHECKSUMS}
        self.meta = self._read_meta()
        if full:
            self._check_padding(header.sections)
        if full and mapped:
            self.verify()
        self._map = data.map() if mapped else None

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; arrays that were taken from it stay valid."""
        self._data.close()

    def error(self, what: str) -> FileError:
        """A FileError that names the file."""
        return FileError(f"{self.label} {what}")

    def array(self, name: str, dtype: npt.DTypeLike, shape: tuple[int | None, ...]) -> Array:
        """A section, which must have that type and shape; None fits any length.

        Returns
        -------
        ndarray
            Aligned to 64 bytes; read-only if mapped, otherwise its own memory.
        """
        section, wanted = self.sections.get(name), np.dtype(dtype).name
        if section is None or name in (META, CHECKSUMS):
            raise self.error(f"lacks section {name!r}")
        fits = len(section.shape) == len(shape) and all(
            b in (a, None) for a, b in zip(section.shape, shape, strict=True)
        )
        if section.dtype != wanted or not fits:
            needed = ", ".join("any" if n is None else str(n) for n in shape)
            raise self.error(f"has section {name!r} as {section.dtype} {section.shape}, {wanted} ({needed}) is needed")
        self._seen.add(name)
        if self._map is not None and section.nbytes:
            view = np.frombuffer(self._map, wanted, math.prod(section.shape), section.offset)
            return view.reshape(section.shape)
        out = aligned(section.shape, wanted)
        self._read(section, out.reshape(-1).view(np.uint8), self.full)
        return out

    def finish(self) -> None:
        """Refuse sections that nobody has asked for."""
        unknown = self.sections.keys() - self._seen
        if unknown:
            raise self.error(f"has a section that {self.kind} does not: {min(unknown)!r}")

    def verify(self) -> None:
        """Compare all checksums."""
        for section in self.sections.values():
            if section.name != CHECKSUMS:
                self._read(section, None, True)

    def check_unchanged(self) -> None:
        """Refuse to go on with a mapped file whose length or time of modification is not what it was."""
        if self._map is not None:
            self._data.check_unchanged()

    def _read_sums(self, crc: int) -> Array:
        section = self.sections[CHECKSUMS]
        sums = np.empty(section.nbytes, np.uint8)
        self._data.read(sums, section.offset)
        if _crc(sums) != crc:
            raise self.error("is damaged: its list of checksums does not have the sum that the header says")
        return sums.view("<u4")

    def _read_meta(self) -> dict[str, Any]:
        section = self.sections[META]
        text = np.empty(section.nbytes, np.uint8)
        self._read(section, text, True)
        try:
            return _parsed(text.tobytes())
        except (ValueError, RecursionError) as error:
            raise self.error(f"has metadata that are no valid JSON object: {error}") from None

    def _read(self, section: Section, out: Array | None, check: bool) -> None:
        """Its bytes into `out`, or nowhere, with or without checking them while they are in cache."""

        def some(begin: int) -> None:
            scratch = np.empty(BLOCK if out is None else 0, np.uint8)
            for at in range(begin, min(begin + READ, section.nbytes), BLOCK):
                parallel.check()
                size = min(BLOCK, section.nbytes - at)
                block = scratch[:size] if out is None else out[at : at + size]
                self._data.read(block, section.offset + at)
                if check and _crc(block) != self._sums[section.first_sum + at // BLOCK]:
                    first = section.offset + at
                    where = f"section {section.name!r}, between bytes {first} and {first + size} of the file"
                    raise self.error(f"is damaged: {where}")

        parts = range(0, section.nbytes, READ)
        parallel.run(some, parts, max(1, min(len(parts), parallel.cores())))

    def _check_padding(self, sections: Sequence[Section]) -> None:
        end = HEADER.size + ENTRY.size * len(sections)
        for section in sections:
            if any(self._data.read_bytes(end, section.offset - end)):
                raise self.error(f"is damaged: bytes before {section.offset} that fill up must be zero")
            end = section.offset + section.nbytes


class _Disk:
    """A file on disk, kept open."""

    def __init__(self, path: str) -> None:
        self.label = path
        self._file = open(path, "rb", buffering=0, opener=_waiting_for_nobody)  # noqa: SIM115
        self.close = weakref.finalize(self, self._file.close)
        found = os.fstat(self._file.fileno())
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise OSError(errno.EINVAL, "Not a regular file; read it and pass its bytes", path)
        self.size, self._modified = found.st_size, found.st_mtime_ns

    def read(self, out: Array, offset: int) -> None:
        left = out.data
        while len(left):
            count = os.preadv(self._file.fileno(), [left], offset)
            if not count:
                raise FileError(f"{self.label} became shorter while it was read")
            left, offset = left[count:], offset + count

    def read_bytes(self, offset: int, count: int) -> bytes:
        out = np.empty(count, np.uint8)
        self.read(out, offset)
        return out.tobytes()

    def map(self) -> mmap.mmap:
        self.check_unchanged()
        return mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ)

    def check_unchanged(self) -> None:
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.size, self._modified):
            raise FileError(
                f"{self.label} changed under the index that is mapped from it; load it again, and replace files by "
                "renaming (as save does), never in place"
            )


class _Memory:
    """Bytes."""

    def __init__(self, source: Any) -> None:
        self.label = "bytes given"
        try:
            self._bytes = np.frombuffer(memoryview(source).cast("B"), np.uint8)
        except TypeError:
            raise TypeError(f"a path or bytes are needed, got {type(source).__name__}") from None
        self.size = len(self._bytes)

    def read(self, out: Array, offset: int) -> None:
        out[:] = self._bytes[offset : offset + len(out)]

    def read_bytes(self, offset: int, count: int) -> bytes:
        return self._bytes[offset : offset + count].tobytes()

    def map(self) -> mmap.mmap:
        raise TypeError("only a file can be mapped; pass its path, or leave out mmap")

    def close(self) -> None:
        pass

    check_unchanged = close


def _waiting_for_nobody(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for somebody who writes


class _Header(NamedTuple):
    kind: str
    version: tuple[int, int]
    sections: list[Section]
    sums: int


def _checked_header(data: _Disk | _Memory) -> _Header:
    """Header and table, once they have the right checksum and agree with each other and the size of the file."""
    label, size = data.label, data.size
    head = data.read_bytes(0, min(size, HEADER.size))
    _refuse_foreign(data, head)
    _, major, minor, order, length, count, file_length, features, block, sums, name, reserved, crc = HEADER.unpack(head)
    if (major, minor) > VERSION:
        known = ".".join(map(str, VERSION))
        raise FileError(f"{label} has format {major}.{minor}, this nestvec reads up to {known}; upgrade nestvec")
    if order != BYTE_ORDER or major < 1 or not 2 <= count <= MAX_SECTIONS or length != HEADER.size + ENTRY.size * count:
        raise FileError(f"{label} is damaged: its header")
    if length > size:
        raise FileError(f"{label} is truncated: it has {size} bytes of {max(file_length, length)}")
    table = data.read_bytes(HEADER.size, length - HEADER.size)
    if _crc(table, _crc(head[:-4])) != crc:
        raise FileError(f"{label} is damaged: its header or table of sections")
    if size < file_length:
        raise FileError(f"{label} is truncated: it has {size} bytes of {file_length}")
    if size > file_length:
        raise FileError(f"{label} has {size} bytes, {size - file_length} more than were written")
    if features:
        raise FileError(f"{label} uses features that this nestvec does not know ({features:#x}); upgrade nestvec")
    kind = _text(name)
    if block != BLOCK or any(reserved) or not KIND.fullmatch(kind):
        raise FileError(f"{label} has an invalid header")
    sections = _checked_table(label, [ENTRY.unpack_from(table, at) for at in range(0, len(table), ENTRY.size)])
    if sections[-1].offset + sections[-1].nbytes != size:
        raise FileError(f"{label} has sections that do not end where the file does")
    return _Header(kind, (major, minor), sections, sums)


def _refuse_foreign(data: _Disk | _Memory, head: bytes) -> None:
    label, size = data.label, data.size
    if size == 0:
        raise FileError(f"{label} is empty")
    if not MAGIC.startswith(head[: len(MAGIC)]):
        look = data.read_bytes(0, min(size, foreign.LOOK))
        raise FileError(f"{label} is no nestvec file: {foreign.described(look, size, data.read_bytes)}")
    if size < HEADER.size:
        raise FileError(f"{label} is truncated: it has {size} bytes, the header alone {HEADER.size}")


def _checked_table(label: str, entries: Sequence[tuple[Any, ...]]) -> list[Section]:
    """Sections as they must lie, given their types and shapes."""
    shapes = []
    for name, dtype, ndim, reserved, *dims, _, nbytes in entries:
        shape, text, kind = tuple(dims[: min(ndim, 4)]), _text(name), _text(dtype)
        fits = NAME.fullmatch(text) and kind in DTYPES and ndim <= 4 and not any(dims[ndim:]) and not reserved
        if not fits or nbytes != _nbytes(kind, shape) or _nbytes(kind, [n or 1 for n in shape]) >= 2**63:
            raise FileError(f"{label} has an invalid table: section {text!r}")
        shapes.append((text, kind, shape))
    sections = _laid_out(shapes)
    blocks = sections[-1].first_sum
    if [section.offset for section in sections] != [entry[-2] for entry in entries]:
        raise FileError(f"{label} has an invalid table: sections that do not follow each other")
    if len({section.name for section in sections}) != len(sections):
        raise FileError(f"{label} has an invalid table: two sections of one name")
    if shapes[0][:2] != (META, "uint8") or len(shapes[0][2]) != 1 or sections[0].nbytes > MAX_META:
        raise FileError(f"{label} has an invalid table: its first section must be metadata of at most {MAX_META} bytes")
    if shapes[-1] != (CHECKSUMS, "uint32", (blocks,)):
        raise FileError(f"{label} has an invalid table: its last section must be {blocks} checksums")
    return sections


def _text(field: bytes) -> str:
    """ASCII up to zeros that fill up; other bytes as what no pattern here matches."""
    return field.rstrip(b"\0").decode("ascii", "backslashreplace")


def _parsed(text: bytes) -> dict[str, Any]:
    """A JSON object, by the letter: no NaN, no key twice, no number that is none."""
    value = json.loads(
        text.decode(), object_pairs_hook=_object, parse_constant=_number, parse_float=_number, parse_int=_integer
    )
    if not isinstance(value, dict):
        raise ValueError("it is a " + type(value).__name__)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number")
    return value


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError("an integer of more than 20 digits")
    return int(text)
