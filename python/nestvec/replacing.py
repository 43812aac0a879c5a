"""Writing a file wholly or not at all."""

from __future__ import annotations

import _thread
import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

BUFFER = 1 << 18  # what is smaller waits to be written together
SYNC = 1 << 23  # bytes that are written before they have to be on disk: some hundredths of a second


class _Steady(io.BufferedWriter):
    """Brings what is written to disk bit by bit: one sync at the end would keep Ctrl-C waiting as long as it takes."""

    _since = 0

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        self._since += written
        if self._since >= SYNC:
            self.flush()
            os.fsync(self.fileno())
            self._since = 0
        return written


@contextmanager
def replacing(path: Any) -> Iterator[BinaryIO]:
    """A new file to write, which takes the place of `path` at the end; after an error nothing has changed.

    It is written under another name in the same directory, and is on disk before it gets its own. A symbolic link stays
    one: what it points to is replaced. Permission bits of a file that was there are kept.

    Raises
    ------
    OSError
        With `path` as its ``filename``; IsADirectoryError for a directory, PermissionError for a read-only file.
    """
    given = os.fsdecode(path)
    target = os.path.realpath(given)
    before = _replaced(target, given)
    temporary = os.path.join(os.path.dirname(target), f".nestvec-{os.urandom(8).hex()}.tmp")
    try:
        opened = io.FileIO(temporary, "x", opener=None if before is None else _private)
        with _Steady(opened, BUFFER) as file:
            yield file
            file.flush()
            if before is not None:
                _permit(file.fileno(), before)
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_directory(os.path.dirname(target))
    except BaseException as error:
        with suppress(OSError):
            _drop(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename, error.filename2 = given, None
        raise


def _drop(path: str) -> None:
    """Remove a file. Nobody waits until the room of a large one is free: that takes some tenths of a second a GB."""
    large = os.name == "posix" and os.path.getsize(path) > SYNC  # elsewhere what is open cannot be removed
    held = os.open(path, os.O_RDONLY) if large else None
    try:
        os.unlink(path)
        if held is not None:
            _thread.start_new_thread(os.close, (held,))
            held = None
    finally:
        if held is not None:
            os.close(held)


def _replaced(target: str, given: str) -> os.stat_result | None:
    """What is there already, None for nothing."""
    if not os.path.basename(given):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), given)
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), given)
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), given)
    if not stat.S_ISREG(found.st_mode):  # a device must not be replaced by a file
        raise OSError(errno.EINVAL, "Not a regular file", given)
    if not os.access(target, os.W_OK):  # the directory decides about replacing, but read-only is meant to protect
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), given)
    return found


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _permit(file: int, before: os.stat_result) -> None:
    """Owner and permission bits as before; without the right to give it to its group, no more for the new group."""
    mode = stat.S_IMODE(before.st_mode)
    made = os.fstat(file)
    if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.fchown(file, before.st_uid, before.st_gid)
        except PermissionError:
            try:
                os.fchown(file, -1, before.st_gid)
            except PermissionError:
                mode = mode & ~0o070 | (mode & 0o007) << 3
    os.fchmod(file, mode)


def _sync_directory(path: str) -> None:
    """Let the new name reach the disk, where the system can say so."""
    try:
        directory = os.open(path, os.O_RDONLY)
    except PermissionError:  # a directory that may be written to, not listed
        return
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(directory)
