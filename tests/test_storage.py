"""The file format: what is written is read, whatever else is refused, and a file is replaced wholly or not at all."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestvec import FileError, foreign, parallel, replacing, storage
from nestvec.kernels import TABLE
from nestvec.storage import Part, array_part, open_file, to_bytes, write

META = {"levels": [64, 128], "metric": "ip", "name": "ü", "scale": 0.5}
HEADER, ENTRY = 96, 112


def contents(rng: np.random.Generator, rows: int = 7) -> dict[str, np.ndarray]:
    return {
        "rows": rng.standard_normal((rows, 5), dtype=np.float32),
        "codes": rng.integers(0, 256, rows, dtype=np.uint8),
        "none": np.empty((0, 4)),
        "one": np.asarray(-3, np.int64),
    }


def parts_of(arrays: dict[str, np.ndarray]) -> list[Part]:
    return [array_part(name, array) for name, array in arrays.items()]


@pytest.fixture
def some(rng: np.random.Generator) -> bytes:
    """A small file."""
    return to_bytes("Thing", META, parts_of(contents(rng)))


@pytest.fixture
def path(tmp_path: Path, some: bytes) -> Path:
    """The same on disk."""
    file = tmp_path / "some.nv"
    file.write_bytes(some)
    return file


def loaded(source: Any, **options: Any) -> dict[str, np.ndarray]:
    """Everything in a file."""
    with open_file(source, **options) as file:
        names = [name for name in file.sections if name not in (storage.META, storage.CHECKSUMS)]
        arrays = {name: file.array(name, file.sections[name].dtype, file.sections[name].shape) for name in names}
        file.finish()
        return arrays


def assert_same(actual: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert list(actual) == list(wanted)
    for name, array in wanted.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_array_equal(actual[name], array, strict=True)
        assert actual[name].ctypes.data % 64 == 0 or array.size == 0


def crc(*data: bytes) -> int:
    """By the loop of the table."""
    loop, total = getattr(TABLE["crc32c"], "py_func", TABLE["crc32c"]), 0
    for part in data:
        total = loop(np.frombuffer(part, np.uint8), total)
    return total


# What is written


def test_round_trip(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = contents(rng, rows=700_001)  # more than one block of one section, a part of one of another
    write(tmp_path / "x", "Thing", META, parts_of(arrays))
    assert_same(loaded(tmp_path / "x"), arrays)
    assert_same(loaded(str(tmp_path / "x"), verify="header"), arrays)
    assert_same(loaded((tmp_path / "x").read_bytes()), arrays)
    assert_same(loaded(memoryview(bytearray((tmp_path / "x").read_bytes()))), arrays)
    for verify in ("full", "header"):
        mapped = loaded(tmp_path / "x", mmap=True, verify=verify)
        assert_same(mapped, arrays)
        assert not any(array.flags.writeable for array in mapped.values() if array.size)


def test_metadata_and_kind(some: bytes) -> None:
    file = open_file(some)
    assert (file.kind, file.version, file.meta) == ("Thing", (1, 0), META)
    assert (file.size, file.label) == (len(some), "bytes given")


def test_versions(rng: np.random.Generator) -> None:
    """A file says the version that it was written as: the oldest unless another is asked for."""
    parts = parts_of(contents(rng))
    for version in (storage.OLDEST, storage.VERSION):
        assert open_file(to_bytes("Thing", META, parts, version)).version == version


def test_same_contents_same_bytes(path: Path, rng: np.random.Generator) -> None:
    """In however many pieces they come, and however metadata are ordered."""
    arrays = contents(rng)
    pieces = [
        Part(name, array.dtype.name, array.shape, [array.reshape(-1)[i : i + 3] for i in range(0, array.size, 3)])
        for name, array in arrays.items()
    ]
    write(path, "Thing", META, parts_of(arrays))
    assert to_bytes("Thing", dict(reversed(META.items())), pieces) == path.read_bytes()


def test_pieces_across_blocks(rng: np.random.Generator) -> None:
    many = rng.integers(0, 256, 3 * storage.BLOCK + 17, dtype=np.uint8)
    cuts = [0, 1, storage.BLOCK - 1, storage.BLOCK, storage.BLOCK + 5, 3 * storage.BLOCK, len(many)]
    pieces = [many[a:b] for a, b in itertools.pairwise(cuts)]
    whole = to_bytes("Thing", {}, [array_part("a", many)])
    assert to_bytes("Thing", {}, [Part("a", "uint8", many.shape, pieces)]) == whole
    np.testing.assert_array_equal(loaded(whole)["a"], many)


def test_a_reader_of_the_documentation(rng: np.random.Generator) -> None:
    """docs/format.md, taken literally."""
    arrays = {"rows": rng.standard_normal((3, 70), dtype=np.float32), "ids": np.arange(3)}
    file = to_bytes("Thing", META, parts_of(arrays))
    assert file[:8] == b"\x89NVI\r\n\x1a\n"
    assert struct.unpack_from("<HHIIIQQI", file, 8) == (1, 0, 0x0A0B0C0D, 96 + 4 * 112, 4, len(file), 0, 2**20)
    sums_crc, kind, reserved, header_crc = struct.unpack_from("<I32s12sI", file, 44)
    assert (kind.rstrip(b"\0"), reserved) == (b"Thing", bytes(12))
    assert header_crc == crc(file[:92], file[96 : 96 + 4 * 112])
    end, sums, found = 96 + 4 * 112, [], {}
    for i in range(4):
        name, dtype, ndim, zero, *dims, offset, nbytes = struct.unpack_from("<48s8sII4QQQ", file, 96 + 112 * i)
        assert offset == -(-end // 64) * 64
        assert not any(file[end:offset])
        end = offset + nbytes
        found[name.rstrip(b"\0").decode()] = (dtype.rstrip(b"\0").decode(), tuple(dims[:ndim]), file[offset:end])
        assert (zero, dims[ndim:]) == (0, [0] * (4 - ndim))
        sums.append(crc(file[offset:end]))
    assert end == len(file)
    assert json.loads(found["meta"][2]) == META
    assert found["checksums"] == ("uint32", (3,), struct.pack("<3I", *sums[:3]))
    assert sums_crc == sums[3]
    for name, array in arrays.items():
        assert found[name] == (array.dtype.name, array.shape, array.tobytes())


@pytest.mark.parametrize(
    ("part", "match"),
    [
        (Part("a", "uint8", (4,), [np.zeros(3, np.uint8)]), "needs 4 bytes, got 3"),
        (Part("a", "uint8", (2,), [np.zeros(3, np.uint8)]), "needs 2 bytes, got 3"),
        (Part("a", "uint8", (4,), [np.zeros(4, np.int8)]), "needs contiguous uint8, got int8"),
        (Part("a", "uint8", (4,), [np.zeros(8, np.uint8)[::2]]), "needs contiguous"),
    ],
)
def test_wrong_parts_are_refused(part: Part, match: str, path: Path, some: bytes) -> None:
    with pytest.raises(ValueError, match=match):
        write(path, "Thing", {}, [part])
    assert path.read_bytes() == some
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(("kind", "meta"), [("Thing", {"a": "x" * 2**20}), ("", {}), ("A" * 33, {}), ("a b", {})])
def test_metadata_that_no_reader_would_take_is_refused(kind: str, meta: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        to_bytes(kind, meta, [])


@pytest.mark.parametrize("names", [["A"], ["a" * 49], [""], ["a"] * 65_535])
def test_sections_that_no_reader_would_take_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        to_bytes("Thing", {}, [array_part(name, np.zeros(1)) for name in names])
    with pytest.raises(ValueError, match="cannot be written"):
        to_bytes("Thing", {}, [array_part("a", np.zeros(1, bool))])


# Damage


def test_every_byte_counts(some: bytes) -> None:
    for at in range(len(some)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(some)
            damaged[at] ^= flip
            with pytest.raises(FileError, match="bytes given"):
                loaded(damaged)


def test_header_and_metadata_are_always_checked(some: bytes, tmp_path: Path) -> None:
    file, meta = tmp_path / "x", open_file(some).sections["meta"]
    covered = {*range(HEADER + 6 * ENTRY), *range(meta.offset, meta.offset + meta.nbytes)}
    for at in range(0, len(some), 3):
        damaged = bytearray(some)
        damaged[at] ^= 0x10
        file.write_bytes(damaged)
        with pytest.raises(FileError, match=str(file)):
            open_file(file, mmap=True)
        if at in covered:
            with pytest.raises(FileError):
                open_file(file, mmap=True, verify="header")


def test_damage_is_located(rng: np.random.Generator, tmp_path: Path) -> None:
    file = tmp_path / "x"
    write(file, "Thing", {}, [array_part("codes", np.zeros(20 * storage.BLOCK, np.uint8))])
    offset = open_file(file, verify="header").sections["codes"].offset + 17 * storage.BLOCK
    with open(file, "r+b") as damaged:
        damaged.seek(offset + 5)
        damaged.write(b"\1")
    match = f"damaged: section 'codes', between bytes {offset} and {offset + storage.BLOCK} of the file"
    with pytest.raises(FileError, match=match):
        open_file(file, mmap=True)
    with open_file(file) as opened, pytest.raises(FileError, match=match):
        opened.array("codes", np.uint8, (None,))


def test_every_length_but_the_right_one(some: bytes) -> None:
    for length in range(len(some)):
        with pytest.raises(FileError, match="is empty" if length == 0 else "is truncated: it has"):
            open_file(some[:length], verify="header")
    for more in (1, 7, 64, len(some)):
        with pytest.raises(FileError, match=f"{more} more than were written"):
            open_file(some + bytes(more), verify="header")


def test_truncation_says_how_much_is_missing(some: bytes) -> None:
    with pytest.raises(FileError, match=f"^bytes given is truncated: it has 1000 bytes of {len(some)}$"):
        open_file(some[:1000])


def sealed(file: bytes | bytearray) -> bytes:
    """With a right checksum of header and table."""
    (count,) = struct.unpack_from("<I", file, 20)
    end = HEADER + ENTRY * min(count, (len(file) - HEADER) // ENTRY)
    return bytes(file[:92]) + struct.pack("<I", crc(bytes(file[:92]), bytes(file[HEADER:end]))) + bytes(file[HEADER:])


def forged(file: bytes, at: int, form: str, *values: Any) -> bytes:
    """With other values in header or table."""
    changed = bytearray(file)
    struct.pack_into("<" + form, changed, at, *values)
    return sealed(changed)


def in_entry(number: int, at: int) -> int:
    return HEADER + ENTRY * number + at


FORGED: dict[str, tuple[int, str, tuple[Any, ...], str]] = {
    "newer": (8, "HH", (2, 0), r"has format 2\.0, this nestvec reads up to 1\.1; upgrade"),
    "newer in a detail": (8, "HH", (1, 2), r"has format 1\.2"),
    "too old": (8, "HH", (0, 9), "damaged"),
    "other byte order": (12, ">I", (0x0A0B0C0D,), "damaged"),
    "header too long": (16, "I", (HEADER + 7 * ENTRY,), "damaged"),
    "fewer sections": (16, "II", (HEADER + 5 * ENTRY, 5), "invalid table"),
    "one section": (16, "II", (HEADER + ENTRY, 1), "damaged"),
    "too many sections": (16, "II", (HEADER + ENTRY * 65_537, 65_537), "damaged"),
    "more sections than fit": (16, "II", (HEADER + ENTRY * 65_536, 65_536), "truncated"),
    "longer": (24, "Q", (2**62,), "truncated"),
    "unknown feature": (32, "Q", (4,), "features that this nestvec does not know"),
    "other blocks": (40, "I", (2**16,), "invalid header"),
    "other sum of sums": (44, "I", (7,), "list of checksums"),
    "no kind": (48, "32s", (b"",), "invalid header"),
    "kind of other letters": (48, "32s", (b"a/b",), "invalid header"),
    "zeros in the kind": (48, "32s", (b"a\0b",), "invalid header"),
    "reserved": (80, "12s", (b"\0" * 11 + b"\1",), "invalid header"),
    "no metadata": (in_entry(0, 0), "48s", (b"mata",), "first section"),
    "metadata of another type": (in_entry(0, 48), "8s", (b"int8",), "first section"),
    "no checksums": (in_entry(5, 0), "48s", (b"sums",), "last section"),
    "checksums of another type": (in_entry(5, 48), "8s", (b"float32",), "last section"),
    "name twice": (in_entry(1, 0), "48s", (b"codes",), "two sections of one name"),
    "no name": (in_entry(1, 0), "48s", (b"",), "invalid table: section ''"),
    "name of other letters": (in_entry(1, 0), "48s", (b"../rows",), "invalid table"),
    "name not ASCII": (in_entry(1, 0), "48s", (b"r\xf6ws",), "invalid table"),
    "unknown type": (in_entry(1, 48), "8s", (b"object",), "invalid table"),
    "text for a type": (in_entry(1, 48), "8s", (b"<f4,(9,)",), "invalid table"),
    "type of another size": (in_entry(1, 48), "8s", (b"float64",), "invalid table"),
    "five dimensions": (in_entry(1, 56), "I", (5,), "invalid table"),
    "many dimensions": (in_entry(1, 56), "I", (2**32 - 1,), "invalid table"),
    "dimensions unused": (in_entry(1, 56), "I", (1,), "invalid table"),
    "reserved in the table": (in_entry(1, 60), "I", (1,), "invalid table"),
    "larger shape": (in_entry(1, 64), "Q", (8,), "invalid table"),
    "product that overflows": (in_entry(1, 64), "QQ", (2**33, 2**33), "invalid table"),
    "product that overflows to the size": (in_entry(1, 64), "QQ", (2**62 + 7, 4 * 5), "invalid table"),
    "nothing of something huge": (in_entry(3, 64), "QQ", (0, 2**63), "invalid table"),
    "nothing of two huge": (in_entry(3, 64), "QQ", (2**62, 0), "invalid table"),
    "overlap": (in_entry(2, 96), "Q", (832,), "do not follow each other"),
    "gap": (in_entry(2, 96), "Q", (1088,), "do not follow each other"),
    "not aligned": (in_entry(1, 96), "Q", (840,), "do not follow each other"),
    "offset beyond the end": (in_entry(2, 96), "Q", (2**63,), "do not follow each other"),
    "huge": (in_entry(4, 56), "II4QQQ", (1, 0, 2**58, 0, 0, 0, 1088, 2**61), "invalid table"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_headers_are_refused(name: str, some: bytes) -> None:
    """Their checksums are right, so nothing but the checks of what they say stands between them and memory."""
    at, form, values, match = FORGED[name]
    form = form if form.startswith(">") else "<" + form
    changed = bytearray(some)
    struct.pack_into(form, changed, at, *values)
    with pytest.raises(FileError, match=match):
        loaded(sealed(changed), verify="header")


def test_sections_beyond_the_end(some: bytes) -> None:
    """Consistent in itself, but larger than the file: nothing of that size is allocated."""
    rows = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2**40, 5), (0, 0))
    shapes = [("meta", "uint8", (2,)), ("rows", "float32", rows.shape)]
    blocks = 1 + -(-rows.nbytes // storage.BLOCK)
    sections = storage._laid_out([*shapes, ("checksums", "uint32", (blocks,))])
    header = bytearray(storage._header("Thing", sections, 0))
    with pytest.raises(FileError, match="is truncated"):
        open_file(bytes(header) + bytes(4000))
    struct.pack_into("<Q", header, 24, len(header) + 4000)
    with pytest.raises(FileError, match="do not end where the file does"):
        open_file(sealed(header) + bytes(4000))


def test_padding_must_be_zero(some: bytes) -> None:
    codes = open_file(some).sections["codes"]
    changed = bytearray(some)
    changed[codes.offset + codes.nbytes + 3] = 1
    with pytest.raises(FileError, match="fill up must be zero"):
        open_file(changed)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b'{"a":NaN}', "no number"),
        (b'{"a":-Infinity}', "no number"),
        (b'{"a":1e999}', "no number"),
        (b'{"a":1,"a":2}', "twice"),
        (b'{"b":{"a":1,"a":2}}', "twice"),
        (b'{"a":' + b"9" * 30 + b"}", "20 digits"),
        (b"[1]", "it is a list"),
        (b"", "Expecting value"),
        (b"{} x", "Extra data"),
        (b'{"a":"\xff"}', "utf-8"),
        (b'{"a":' + b"[" * 200_000, "recursion|Expecting"),
    ],
)
def test_metadata_must_be_a_strict_object(text: bytes, match: str) -> None:
    sections = storage._laid_out([("meta", "uint8", (len(text),)), ("checksums", "uint32", (1 if text else 0,))])
    sums = struct.pack("<I", crc(text)) if text else b""
    file = storage._header("Thing", sections, crc(sums))
    for section, data in zip(sections, (text, sums), strict=True):
        file = file.ljust(section.offset, b"\0") + data
    with pytest.raises(FileError, match=f"metadata that are no valid JSON object.*({match})"):
        open_file(file)


# What is asked for


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "match"),
    [
        ("cows", np.float32, (7, 5), "lacks section 'cows'"),
        ("meta", np.uint8, (None,), "lacks section 'meta'"),
        ("rows", np.float64, (7, 5), r"has section 'rows' as float32 \(7, 5\), float64 \(7, 5\) is needed"),
        ("rows", np.uint32, (7, 5), "uint32"),
        ("rows", np.float32, (5, 7), r"float32 \(5, 7\) is needed"),
        ("rows", np.float32, (35,), r"float32 \(35\) is needed"),
        ("rows", np.float32, (None, 6), r"float32 \(any, 6\) is needed"),
        ("one", np.int64, (1,), r"as int64 \(\), int64 \(1\) is needed"),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_an_array_is_what_was_asked_for(
    name: str, dtype: type, shape: tuple[int | None, ...], match: str, mapped: bool, path: Path
) -> None:
    with open_file(path, mmap=mapped) as file, pytest.raises(FileError, match=match):
        file.array(name, dtype, shape)


def test_sections_of_any_length(some: bytes) -> None:
    file = open_file(some)
    assert file.array("rows", np.float32, (None, 5)).shape == (7, 5)
    assert file.array("none", np.float64, (None, 4)).shape == (0, 4)


def test_sections_that_nobody_knows_are_refused(some: bytes) -> None:
    file = open_file(some)
    for name in ("rows", "none", "one"):
        file.array(name, file.sections[name].dtype, file.sections[name].shape)
    with pytest.raises(FileError, match="has a section that Thing does not: 'codes'"):
        file.finish()


def test_arguments(path: Path, some: bytes) -> None:
    with pytest.raises(ValueError, match="verify must be one of"):
        open_file(path, verify="lazy")
    with pytest.raises(TypeError, match="only a file can be mapped"):
        open_file(some, mmap=True)
    with pytest.raises(TypeError, match="a path or bytes are needed, got int"):
        open_file(3)


# Other files


FOREIGN = {
    b"\x93NUMPY\x01\x00v\0": "numpy",
    b"PK\x03\x04\x14\0": "zip archive",
    b"\x80\x04\x95\x20\0\0\0": "a pickle, which nestvec never loads",
    b"\x1f\x8b\x08\0": "gzip",
    b"PAR1\x15\0": "Parquet",
    b"SQLite format 3\0": "SQLite",
    b"version https://git-lfs.github.com/spec/v1": "git lfs pull",
    b"<!DOCTYPE html>": "HTML",
    struct.pack("<4siqqqb", b"IxF2", 64, 200, 2**20, 2**20, 1): r"faiss \(IxF2\); faiss.read_index",
    struct.pack("<4siqqqb", b"IwPQ", 64, 200, 2**20, 2**20, 1): "faiss",
    struct.pack("<4siiqb", b"IBxF", 64, 8, 200, 1): "faiss",
    struct.pack("<IIhh7s", 2, 2, 1, 1, b"usearch"): "usearch",
    struct.pack("<QQhh7s", 2, 2, 1, 1, b"usearch"): "usearch",
    struct.pack("<6Q52x", 0, 10, 10, 10, 2, 2): "hnswlib",
    struct.pack("<Q", 9) + b'{"a":{}} ....': "safetensors",
    b"\x89NVI\n\x1a\n\0\1\0": "text mode",
    b"\x89NVI\r\r\n\x1a\n": "text mode",
    b"\tNVI\r\n\x1a\n": "text mode",
    b"Ixion is a moon": r"it begins with b'Ixion is'",
    b"\x80": "it begins with",
    bytes(64): "it begins with",
    b"hello\n": r"it begins with b'hello\\n'",
}


@pytest.mark.parametrize("data", FOREIGN)
def test_other_files_are_named(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(data)
    for source, label in ((file, str(file)), (data, "bytes given")):
        with pytest.raises(FileError, match=f"^{label} is no nestvec file: .*{FOREIGN[data]}"):
            open_file(source)


def test_any_bytes_can_be_described(rng: np.random.Generator) -> None:
    for _ in range(300):
        data = rng.integers(0, 256, int(rng.integers(1, 100)), dtype=np.uint8) * rng.integers(0, 2, dtype=np.uint8)
        some = data.tobytes()
        assert foreign.described(some[: foreign.LOOK], len(some), lambda at, n, some=some: some[at : at + n])


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        open_file(tmp_path)
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"):
        open_file(tmp_path / "pipe")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts open files in /proc")
def test_files_are_closed(path: Path, some: bytes) -> None:
    before = open_files()
    damaged = path.with_name("damaged")
    damaged.write_bytes(some[:-1] + b"\xff")
    errors = []
    for mapped in (False, True):
        with pytest.raises(FileError) as caught:
            open_file(damaged, mmap=mapped)
        errors.append(caught)
    assert open_files() == before
    with open_file(path, mmap=True) as file:
        rows = file.array("rows", np.float32, (7, 5))
    del file
    assert open_files() == before + 1  # the mapping has its own
    assert np.isfinite(rows).all()
    del rows
    assert open_files() == before


# Mapped files that change


def test_a_mapped_file_that_changes(path: Path, some: bytes) -> None:
    os.utime(path, ns=(0, 0))
    with open_file(path, mmap=True) as file:
        file.check_unchanged()
        os.replace(path, path.with_name("moved"))
        write(path, "Other", {}, [])
        file.check_unchanged()
        with open(path.with_name("moved"), "r+b") as changed:
            changed.write(some)
        with pytest.raises(FileError, match="changed under the index"):
            file.check_unchanged()
    os.utime(path, ns=(0, 0))
    with open_file(path, mmap=True) as file:
        os.truncate(path, 100)
        os.utime(path, ns=(0, 0))
        with pytest.raises(FileError, match=f"{path} changed under the index"):
            file.check_unchanged()


def test_arrays_that_were_read_do_not_follow_the_file(path: Path) -> None:
    with open_file(path) as file:
        os.truncate(path, 0)
        file.check_unchanged()
        with pytest.raises(FileError, match="became shorter"):
            file.array("rows", np.float32, (7, 5))


def test_mapping_what_has_become_shorter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shortened(self: Any) -> None:
        os.truncate(path, 10)

    monkeypatch.setattr(storage.File, "verify", shortened)
    with pytest.raises(FileError, match="changed"):
        open_file(path, mmap=True)


# Replacing files


def test_a_new_file_has_the_permissions_of_the_process(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "x", "Thing", {}, [])
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "x").st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o755])
def test_permissions_stay(mode: int, path: Path) -> None:
    path.chmod(mode)
    write(path, "Other", {}, [])
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    assert open_file(path).kind == "Other"


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_group_that_cannot_be_kept_gets_no_more_than_others(
    refusals: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.chmod(0o674)
    asked = []

    def refuse(_: int, user: int, group: int) -> None:
        asked.append((user, group))
        if len(asked) <= refusals:
            raise PermissionError(errno.EPERM, "no")

    found = os.stat(path)
    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "lstat", lambda _: os.stat_result((*found[:5], found.st_gid + 1, *found[6:])))
    write(path, "Other", {}, [])
    assert asked == [(found.st_uid, found.st_gid + 1), (-1, found.st_gid + 1)]
    assert stat.S_IMODE(os.stat(path).st_mode) == (0o674 if refusals == 1 else 0o644)


def test_links_stay(tmp_path: Path, path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, target in (("absolute", path), ("relative", Path("..") / path.name), ("dangling", Path("later"))):
        link = folder / name
        link.symlink_to(target)
        write(link, name, {}, [])
        assert link.is_symlink()
        assert open_file(folder / target).kind == open_file(link).kind == name
    assert sorted(os.listdir(folder)) == ["absolute", "dangling", "later", "relative"]
    (folder / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        write(folder / "loop", "Thing", {}, [])


def test_names_of_any_length(tmp_path: Path) -> None:
    longest = tmp_path / ("x" * 255)
    for _ in range(2):
        write(longest, "Thing", {}, [])
    assert open_file(longest).kind == "Thing"
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        write(tmp_path / ("x" * 256), "Thing", {}, _never())
    assert os.listdir(tmp_path) == ["x" * 255]


def _never() -> Any:
    """Parts that must not be asked for."""

    def fail() -> Iterator[np.ndarray]:
        raise AssertionError("nothing should be written")
        yield

    return [Part("a", "uint8", (1,), fail())]


def test_what_cannot_be_replaced(tmp_path: Path, path: Path, some: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(os, "access", lambda name, _: name != str(path))  # who may do everything runs tests too
    before = sorted(os.listdir(tmp_path))
    wanted: dict[Any, type[OSError]] = {
        tmp_path / "folder": IsADirectoryError,
        f"{tmp_path}/new/": IsADirectoryError,
        tmp_path / "pipe": OSError,
        "/dev/null": OSError,
        tmp_path / "nowhere" / "x": FileNotFoundError,
        path / "x": NotADirectoryError,
        path: PermissionError,
    }
    for target, error in wanted.items():
        with pytest.raises(error) as caught:
            write(target, "Thing", {}, _never())
        assert caught.value.filename == str(target)
    assert sorted(os.listdir(tmp_path)) == before
    assert path.read_bytes() == some


def _fails(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_long_files_reach_the_disk_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sync has more to do than SYNC bytes and what was written at once."""
    path, sizes, sync = tmp_path / "x", [0], os.fsync

    def noted(file: int) -> None:
        if stat.S_ISREG(os.fstat(file).st_mode):
            sizes.append(os.fstat(file).st_size)
        sync(file)

    monkeypatch.setattr(replacing, "SYNC", 1000)
    monkeypatch.setattr(os, "fsync", noted)
    with replacing.replacing(path) as file:
        for _ in range(50):
            file.write(bytes(90))
    assert path.read_bytes() == bytes(4500)
    assert sizes[-1] == 4500
    assert 0 < max(b - a for a, b in pairwise(sizes)) <= 1090


def test_large_files_that_are_given_up_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once by name; what they hold is freed by the time that a thread has closed them."""
    monkeypatch.setattr(replacing, "SYNC", 1000)
    before = set(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None

    def give_up() -> None:
        with replacing.replacing(tmp_path / "x") as file:
            file.write(bytes(5000))
            raise KeyboardInterrupt

    for _ in range(20):
        with pytest.raises(KeyboardInterrupt):
            give_up()
        assert os.listdir(tmp_path) == []
    for _ in range(1000):
        if before is None or set(os.listdir("/proc/self/fd")) <= before:
            return
        time.sleep(0.01)
    pytest.fail("files stay open")


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
def test_errors_of_the_system_leave_everything_as_it_was(
    step: str, path: Path, some: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, step, _fails(errno.ENOSPC))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        write(path, "Other", {}, [])
    assert caught.value.filename == str(path)
    assert path.read_bytes() == some
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(("number", "raises"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_directories_that_cannot_be_synced(
    number: int, raises: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some systems cannot, which is no error; the file is there in any case."""
    sync = os.fsync

    def refuse(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(number, os.strerror(number))
        sync(file)

    monkeypatch.setattr(os, "fsync", refuse)
    if raises:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            write(path, "Other", {}, [])
    else:
        write(path, "Other", {}, [])
    assert open_file(path).kind == "Other"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk(path: Path, some: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    given, opened = [], io.FileIO

    def full(name: str, mode: str, opener: Any) -> Any:
        given.append(opened(name, mode, opener=opener))
        return opened("/dev/full", "w")

    monkeypatch.setattr(io, "FileIO", full)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
            write(path, "Other", {}, [array_part("a", np.zeros(2**20))])
    finally:
        monkeypatch.undo()
    given[0].close()
    assert caught.value.filename == str(path)
    assert path.read_bytes() == some
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, TimeoutError("too late")])
def test_interrupted_writing_leaves_the_old_file(error: Any, path: Path, some: bytes) -> None:
    seen = []

    def pieces() -> Iterator[np.ndarray]:
        yield np.zeros(2**21, np.uint8)
        seen.extend(os.listdir(path.parent))
        raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        write(path, "Other", {}, [Part("a", "uint8", (2**22,), pieces())])
    assert len(seen) == 2
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == some


def test_calls_that_are_over_stop_reading_and_writing(path: Path, some: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def over() -> None:
        raise TimeoutError("too late")

    monkeypatch.setattr(parallel, "check", over)
    with pytest.raises(TimeoutError):
        write(path, "Other", {}, [array_part("a", np.zeros(2**20))])
    with pytest.raises(TimeoutError):
        open_file(path)
    assert path.read_bytes() == some


SAVING = """
import sys, time, numpy as np
from nestvec import storage
def pieces():
    for i in range(100):
        yield np.full(2**20, i, np.uint8)
        print(i, flush=True)
        time.sleep(0.01)
storage.write(sys.argv[1], "Other", {}, [storage.Part("a", "uint8", (100 * 2**20,), pieces())])
"""


@pytest.mark.parametrize("after", [1, 30])
def test_a_process_that_is_killed_leaves_the_old_file(after: int, path: Path, some: bytes) -> None:
    with subprocess.Popen([sys.executable, "-c", SAVING, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == some
    (left,) = {*os.listdir(path.parent)} - {path.name}
    assert left.startswith(".nestvec-")
    assert left.endswith(".tmp")


def test_a_directory_that_cannot_be_listed_or_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, synced = os.open, os.fsync

    def refuse(name: Any, flags: int, *mode: int) -> int:
        if os.path.isdir(name):
            raise PermissionError(errno.EACCES, "no")
        return opened(name, flags, *mode)

    def unable(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "no")
        synced(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        write(path, "First", {}, [])
    assert open_file(path).kind == "First"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", unable)
        write(path, "Second", {}, [])
    assert open_file(path).kind == "Second"


def test_threads_read_together(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    many = rng.integers(0, 256, 3 * storage.READ + 12_345, dtype=np.uint8)
    write(tmp_path / "x", "Thing", {}, [array_part("a", many)])
    monkeypatch.setattr(parallel, "cores", lambda: 3)
    np.testing.assert_array_equal(loaded(tmp_path / "x")["a"], many)
