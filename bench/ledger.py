"""Rows of a benchmark that takes long, saved as they are found: an interrupted run goes on where it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import machine

RESULTS = Path(__file__).parent / "results"


class Ledger:
    """bench/results/NAME.json, in the form that search.py writes; rows of another run, or of other settings, stay.

    Parameters
    ----------
    name : str
    settings : dict
        Of this run, as JSON takes them.
    keys : sequence of str
        What tells the row groups apart that are measured, and replaced, as one.
    """

    def __init__(self, name: str, settings: dict, keys: Sequence[str]) -> None:
        self.path, self.keys = RESULTS / f"{name}.json", keys
        before = json.loads(self.path.read_text()) if self.path.exists() else {"runs": [{"rows": []}]}
        self.rows: list[dict] = before["runs"][0]["rows"]
        self.result = {"machine": machine.describe(), "settings": settings}
        self.blas, self.load = machine.blas_kernels(), os.getloadavg()

    def has(self, **group: object) -> bool:
        """Whether a group is there."""
        return bool(self.get(**group))

    def get(self, **group: object) -> list[dict]:
        """The rows of a group."""
        return [row for row in self.rows if self._of(row, group)]

    def put(self, rows: Sequence[dict], **group: object) -> None:
        """Replace a group, and save; each row gets the time and the load."""
        stamp = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "load": os.getloadavg()[0]}
        self.rows = [row for row in self.rows if not self._of(row, group)] + [group | row | stamp for row in rows]
        run = {"threads": 1, "blas": self.blas, "load_average": [self.load, os.getloadavg()], "rows": self.rows}
        RESULTS.mkdir(exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.result | {"runs": [run]}, indent=1) + "\n")
        partial.replace(self.path)

    def _of(self, row: dict, group: dict) -> bool:
        return all(row.get(key) == group[key] for key in self.keys if key in group)


def on_one_thread() -> None:
    """Run this script again where every library has one thread, and end; return where that is so already."""
    if os.environ.get("NESTVEC_BENCH_CHILD"):
        return
    child = machine.environment(1, avx2=False) | {"NESTVEC_BENCH_CHILD": "1"}
    sys.exit(subprocess.run([sys.executable, "-u", *sys.argv], env=child, check=False).returncode)
