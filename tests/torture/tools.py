"""What every torture test shares: how much of it to do, and children with a time limit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FULL = os.environ.get("NESTVEC_TORTURE") == "full"
HANGS = 300  # seconds after which a child will not come back any more


def amount(short: Any, full: Any) -> Any:
    """How much to do: little, unless NESTVEC_TORTURE=full asks for more."""
    return full if FULL else short


def python(*arguments: Any, preload: Path | None = None, path: tuple[Path, ...] = (), **variables: str) -> list[str]:
    """The command that runs Python with these arguments, able to import what tests can, and `path`."""
    folders = [HERE, *path, HERE.parent, *filter(None, sys.path)]
    settings = {"PYTHONPATH": os.pathsep.join(map(str, folders)), **variables}
    if preload is not None:
        settings["LD_PRELOAD"] = str(preload)
    names = [f"{name}={value}" for name, value in settings.items()]
    return ["env", *names, sys.executable, *map(str, arguments)]
