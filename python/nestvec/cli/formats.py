"""Arrays in .npy, .npz and Parquet files.

A .npy file is mapped, a Parquet column of one chunk is not copied, an .npz array is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO

import click
import numpy as np
import numpy.typing as npt

from ..storage import FileError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Named:
    """An array in a file, not read yet."""

    ndim: int
    described: str
    read: Callable[[], Array]


def npy(file: BinaryIO, path: str | None) -> Array:
    """The array of a .npy file, mapped if that has a path."""
    if path is None:
        return np.lib.format.read_array(file, allow_pickle=False)
    try:
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # nothing to map; what is really wrong is said now
        mapped = np.load(path, allow_pickle=False)
    return mapped


def npz(file: BinaryIO, path: str | None) -> dict[str, Named]:
    """The arrays of an .npz file, by their headers."""
    from zipfile import BadZipFile, ZipFile

    found = {}
    try:
        with ZipFile(file) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as packed:
                        shape, dtype = _header(packed)
                    read = partial(_unpacked, path or file, member)
                    found[member[:-4]] = Named(len(shape), f"{shape} {dtype}", read)
    except BadZipFile as error:
        raise ValueError(error) from None
    return found


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _unpacked(file: Any, member: str) -> Array:
    from zipfile import BadZipFile, ZipFile
    from zlib import error as ZlibError

    try:
        with ZipFile(file) as archive, archive.open(member) as packed:
            return np.lib.format.read_array(packed, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile, ZlibError) as error:
        raise FileError(f"{member} in {file if isinstance(file, str) else 'stdin'} cannot be read: {error}") from None


def parquet(label: str, file: BinaryIO, path: str | None) -> dict[str, Named]:
    """The columns of a Parquet file, by their types: two axes for lists of numbers, one for integers and text."""
    try:
        pq = import_module("pyarrow.parquet")
    except ImportError:
        raise click.UsageError(f'{label} is Parquet, which needs pyarrow: pip install "nestvec[parquet]"') from None
    given = path or file
    count, schema = pq.ParquetFile(given).metadata.num_rows, pq.read_schema(given)
    return {
        field.name: Named(_axes(field.type), f"{count} of {field.type}", partial(_column, label, given, field.name))
        for field in schema
    }


def _axes(kind: Any) -> int:
    types: Any = import_module("pyarrow.types")
    if types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
        return 2 if types.is_integer(kind.value_type) or types.is_floating(kind.value_type) else 0
    return 1 if types.is_integer(kind) or types.is_string(kind) or types.is_boolean(kind) else 0


def _column(label: str, given: Any, name: str) -> Array:
    pq = import_module("pyarrow.parquet")
    try:
        column = pq.read_table(given, columns=[name]).column(name)
    except (ValueError, OSError) as error:
        raise FileError(f"column {name!r} of {label} cannot be read: {error}") from None
    chunks = [_chunk(label, name, chunk) for chunk in column.chunks]
    widths = {chunk.shape[1:] for chunk in chunks if len(chunk)}
    if len(widths) > 1:
        raise click.UsageError(_uneven(label, name))
    full = [chunk for chunk in chunks if len(chunk)] or chunks[:1]
    if not full:
        raise click.UsageError(f"column {name!r} of {label} has no rows")
    return full[0] if len(full) == 1 else np.concatenate(full)


def _chunk(label: str, name: str, chunk: Any) -> Array:
    """A view of a column's values, one row of them for each list."""
    types: Any = import_module("pyarrow.types")
    kind = chunk.type
    if chunk.null_count or (_axes(kind) == 2 and chunk.flatten().null_count):
        raise click.UsageError(f"column {name!r} of {label} holds nulls; fill or drop them first")
    if _axes(kind) < 2:
        return np.asarray(chunk.to_numpy(zero_copy_only=False))
    values: Array = chunk.flatten().to_numpy(zero_copy_only=True)
    if types.is_fixed_size_list(kind):
        return values.reshape(-1, kind.list_size)
    sizes = np.diff(chunk.offsets.to_numpy())
    if len(sizes) and (sizes != sizes[0]).any():
        raise click.UsageError(_uneven(label, name))
    return values.reshape(len(sizes), -1)


def _uneven(label: str, name: str) -> str:
    return f"column {name!r} of {label} holds lists of different lengths; all vectors need the same dims"
