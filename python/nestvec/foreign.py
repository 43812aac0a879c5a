"""What a file is that is none of ours, for messages."""

from __future__ import annotations

from collections.abc import Callable

LOOK = 64  # bytes at the beginning that `described` wants to see

PREFIXES = {
    b"\x93NUMPY": "a numpy array (.npy); np.load reads it",
    b"PK\x03\x04": "a zip archive, as .npz and PyTorch files are",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "compressed by gzip; decompress it first",
    b"BZh": "compressed by bzip2; decompress it first",
    b"\xfd7zXZ\x00": "compressed by xz; decompress it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; decompress it first",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"SQLite format 3\x00": "an SQLite database",
    b"TV": "perhaps an index of turbovec",
    b"usearch": "an index of usearch",
    b"GGUF": "a GGUF model",
    b"version https://git-lfs": "a Git LFS pointer; git lfs pull fetches the file itself",
    b"<!DOCTYPE": "an HTML page, perhaps of a download that failed",
    b"<!doctype": "an HTML page, perhaps of a download that failed",
    b"<html": "an HTML page, perhaps of a download that failed",
}


def described(head: bytes, size: int, read: Callable[[int, int], bytes]) -> str:
    """A few words on a file of `size` bytes that begins with `head`; `read` takes first byte and count."""
    for prefix, words in PREFIXES.items():
        if head.startswith(prefix):
            return words
    if head[1:4] == b"NVI":
        return "its first bytes were changed, as a transfer in text mode does; transfer it again in binary mode"
    if _is_faiss(head):
        return f"an index of faiss ({head[:4].decode()}); faiss.read_index reads it"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle, which nestvec never loads"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return "a safetensors file"
    if _is_usearch(head, size, read):
        return "an index of usearch"
    if _is_hnswlib(head, size):
        return "perhaps an index of hnswlib"
    return f"it begins with {head[:8]!r}"


def _is_faiss(head: bytes) -> bool:
    known = head[:1] == b"I" and head[1:2] in b"xwvHNBLPRSm" and head[:4].isalnum()
    return len(head) > 8 and known and head[6:8] == b"\0\0"  # dims, as int32


def _is_usearch(head: bytes, size: int, read: Callable[[int, int], bytes]) -> bool:
    """Vectors first, as a number of rows and of bytes a row, then what says whose they are."""
    for width in (4, 8):
        rows, each = (int.from_bytes(head[i * width : (i + 1) * width], "little") for i in (0, 1))
        at = 2 * width + rows * each
        if at + 7 <= size and read(at, 7) == b"usearch":
            return True
    return False


def _is_hnswlib(head: bytes, size: int) -> bool:
    """No name, but sizes: offset 0, room, count, bytes of an element."""
    offset, room, count, each = (int.from_bytes(head[i : i + 8], "little") for i in range(0, 32, 8))
    return len(head) >= 32 and offset == 0 and 0 < count <= room and each > 0 and count * each <= size
