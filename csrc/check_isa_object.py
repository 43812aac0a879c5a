"""Fail the build if an ISA object exports more than its table or runs code when loaded.

A second global symbol may be merged with another variant's, and a static initialiser runs before the CPU was asked:
both have crashed other libraries on older machines.
"""

from __future__ import annotations

import subprocess
import sys


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(nm: str, objdump: str, name: str, *objects: str) -> None:
    for path in objects:
        symbols = [line.split() for line in run(nm, "--defined-only", "--extern-only", path).splitlines()]
        names = [fields[-1] for fields in symbols if len(fields) >= 3]
        if len(names) != 1 or f"kernels_{name}" not in names[0]:
            sys.exit(f"{path}: exports {names}, may export only the table kernels_{name}")
        sections = run(objdump, "-h", path)
        for section in (".init_array", ".ctors"):
            if section in sections:
                sys.exit(f"{path}: has a static initialiser ({section})")


if __name__ == "__main__":
    main(*sys.argv[1:])
