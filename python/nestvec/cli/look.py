"""`nestvec info` and `nestvec verify`: what a file is, and whether it is whole."""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import Any

import click

from .. import files, report
from ..storage import File, FileError, open_file
from .options import as_json
from .output import show


@click.command(short_help="Show what is installed, or what a file is.")
@click.argument("file", required=False)
@as_json
def info(file: str | None, as_json: bool) -> None:
    """Show version, backend and why, compiler, cores; or what an index in FILE is, by its header alone."""
    if file is None:
        show(report.show_config(), as_json)
        return
    with open_file(file, verify="header") as opened:
        facts, meta = _facts(opened), opened.meta
        sections = list(opened.sections.values())
    if as_json:
        rows = [{"name": s.name, "dtype": s.dtype, "shape": s.shape, "bytes": s.nbytes} for s in sections]
        show({**facts, "meta": meta, "sections": rows}, as_json)
        return
    show(facts, as_json)
    show({json.dumps(key)[1:-1]: json.dumps(value) for key, value in meta.items()}, as_json)  # no control characters
    cells = [(section.name, section.dtype, str(section.shape)) for section in sections]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row, section in zip(cells, sections, strict=True):
        print("  ", *(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), f"{section.nbytes:,} bytes")


@click.command(short_help="Check every byte of an index file.")
@click.argument("file")
@as_json
def verify(file: str, as_json: bool) -> None:
    """Check everything in an index's FILE. Exit status 1 if it is damaged."""
    began = perf_counter()
    try:
        with open_file(file, mmap=True, verify="full") as opened:
            files.restored(opened)
            facts = _facts(opened)
    except FileError as error:
        if not as_json:
            raise
        print(json.dumps({"ok": False, "error": str(error)}))
        sys.exit(1)
    seconds = perf_counter() - began
    if as_json:
        print(json.dumps({"ok": True, **facts, "seconds": round(seconds, 6)}))
    else:
        print(f"ok: {facts['kind']}, format {facts['format']}, {facts['bytes']:,} bytes, {seconds:.3f} s")


def _facts(file: File) -> dict[str, Any]:
    return {"file": file.label, "kind": file.kind, "format": ".".join(map(str, file.version)), "bytes": file.size}
