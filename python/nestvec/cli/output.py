"""What commands print."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def show(values: dict[str, Any], as_json: bool) -> None:
    """Print names and values, a line each, or one JSON object."""
    if as_json:
        print(json.dumps(values, indent=2, default=str))
    else:
        for key, value in values.items():
            print(f"{key}: {value}")


def note(message: str) -> None:
    """Say something that is no result, in a line on stderr."""
    print(f"nestvec: {printable(' '.join(message.split()))}", file=sys.stderr)


def printable(text: str) -> str:
    """Text, from a file perhaps, without what a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print aligned columns, the first `left` of them to the left."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
