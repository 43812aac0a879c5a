"""Files taken apart and put together again with other contents and right checksums."""

from __future__ import annotations

from typing import Any

import numpy as np

from nestvec import files, storage

Sections = dict[str, np.ndarray]


def apart(data: bytes) -> tuple[str, dict[str, Any], Sections]:
    """Kind, metadata and sections of a file."""
    with storage.open_file(data, verify="header") as file:
        names = [name for name in file.sections if name not in (storage.META, storage.CHECKSUMS)]
        found = {name: file.array(name, file.sections[name].dtype, file.sections[name].shape) for name in names}
        return file.kind, file.meta, found


def together(kind: str, meta: dict[str, Any], sections: Sections, version: tuple[int, int] | None = None) -> bytes:
    """A file of these, of the version that they ask for."""
    parts = [storage.array_part(name, np.ascontiguousarray(array)) for name, array in sections.items()]
    return storage.to_bytes(kind, meta, parts, version or files.version_of(meta))
