"""A server whose index is made, and searched with threads, before its workers are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from forks import _index as index
from forks import _right as right
from forks import ask, prepare

prepare("vectors")


def app(environment: dict[str, Any], start: Callable[[str, list[tuple[str, str]]], Any]) -> Iterator[bytes]:
    """The number of the process, if its answers are those of its parent."""
    same = ask(index["vectors"], "vectors") == right["vectors"]
    start("200 OK" if same else "500 Other answers", [("Content-Type", "text/plain")])
    yield str(os.getpid()).encode()
