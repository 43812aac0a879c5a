"""Kernels under ThreadSanitizer: eight threads search a segment while one adds to it, see `stress.cpp`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nestvec import backends
from tools import HANGS, HERE, amount

pytestmark = pytest.mark.torture

FLAGS = {
    "avx512": "-march=x86-64-v4 -mavx512vnni -mavx512vbmi -mavx512vpopcntdq -mprefer-vector-width=512",
    "avx2": "-march=x86-64-v3",
    "dotprod": "-march=armv8.2-a+dotprod",
    "baseline": "",
}
FOUND = [isa for isa in FLAGS if isa in backends.available()]  # AMX loads are invisible to the sanitizer
ISAS = amount([isa for isa in FOUND if isa != "avx512"][:1], FOUND)
IN_PLACE = ("topk", "maxsim")  # read rows and tokens that count, nothing else
IN_BLOCKS = ("scan", "b1", "i4", "i8", "bits", "bags")


@pytest.fixture(params=ISAS)
def stress(request: pytest.FixtureRequest, compiled: Callable[..., Path]) -> Callable[..., tuple[int, str]]:
    """Runs the stress test; its exit status, 66 for data races, and what it prints."""
    if not (HERE.parents[1] / "csrc").exists():
        pytest.skip("needs the sources of the kernels")
    sanitized = ["-std=gnu++20", "-O1", "-g", "-fsanitize=thread", "-ffp-contract=off", "-Wno-psabi", "-I../../csrc"]
    sanitized += [f"-DNESTVEC_ISA={request.param}"]
    kernels = compiled(
        f"{request.param}.o", *sanitized, *FLAGS[request.param].split(), "-c", "../../csrc/isa.cpp", "-fno-exceptions"
    )
    program = compiled(f"stress-{request.param}", *sanitized, "stress.cpp", kernels)

    def run(seconds: float, *arguments: str) -> tuple[int, str]:
        command = [program, str(seconds), "1", *arguments]
        first = dict(os.environ, TSAN_OPTIONS="halt_on_error=1")  # one report is enough
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + HANGS, env=first)
        if "unexpected memory mapping" in done.stderr:
            pytest.skip("ThreadSanitizer does not run under this system's address space layout")
        return done.returncode, done.stdout + done.stderr

    return run


def test_copies_of_unfinished_blocks_have_no_races(
    stress: Callable[..., tuple[int, str]], note: Callable[[str], None]
) -> None:
    status, printed = stress(amount(3, 60), "copy", *IN_BLOCKS, *IN_PLACE)
    assert status == 0, printed
    note(f"{printed.strip()}, no race")


@pytest.mark.parametrize("operation", amount(IN_BLOCKS[:2], IN_BLOCKS))
def test_unfinished_blocks_read_in_place_are_races(stress: Callable[..., tuple[int, str]], operation: str) -> None:
    """Without copies the sanitizer complains: so it sees what kernels read, and copies are of use."""
    status, printed = stress(0.2, "place", operation)
    assert status == 66, printed
