"""Kernels under ThreadSanitizer: eight threads search a segment while one adds to it, see `stress.cpp`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

import nestvec
from nestvec import backends
from subjects import SUBJECTS
from tools import FULL, HANGS, HERE, amount, python

SOURCES = HERE.parents[1] / "csrc"
pytestmark = [pytest.mark.torture, pytest.mark.skipif(not SOURCES.exists(), reason="needs the sources of the kernels")]

FLAGS = {
    "avx512": "-march=x86-64-v4 -mavx512vnni -mavx512vbmi -mavx512vpopcntdq -mprefer-vector-width=512",
    "avx2": "-march=x86-64-v3",
    "dotprod": "-march=armv8.2-a+dotprod",
    "baseline": "",
}
FOUND = [isa for isa in FLAGS if isa in backends.available()]  # AMX loads are invisible to the sanitizer
ISAS = amount([isa for isa in FOUND if isa != "avx512"][:1], FOUND)
SANITIZED = ["-std=gnu++20", "-O1", "-g", "-fsanitize=thread", "-ffp-contract=off", "-Wno-psabi", "-fPIC"]
IN_PLACE = ("topk", "maxsim")  # read rows and tokens that count, nothing else
IN_BLOCKS = ("scan", "b1", "i4", "i8", "bits", "bags")


@pytest.fixture
def kernels(compiled: Callable[..., Path]) -> Callable[[str], Path]:
    """The object of an instruction set's kernels, with the sanitizer's checks."""

    def compile_(isa: str) -> Path:
        options = [*SANITIZED, f"-DNESTVEC_ISA={isa}", *FLAGS[isa].split(), "-fno-exceptions"]
        return compiled(f"{isa}.o", *options, "-c", SOURCES / "isa.cpp")

    return compile_


@pytest.fixture(params=ISAS)
def stress(
    request: pytest.FixtureRequest, compiled: Callable[..., Path], kernels: Callable[[str], Path]
) -> Callable[..., tuple[int, str]]:
    """Runs the stress test; its exit status, 66 for data races, and what it prints."""
    isa = request.param
    options = [*SANITIZED, f"-DNESTVEC_ISA={isa}", f"-I{SOURCES}"]
    program = compiled(f"stress-{isa}", *options, "stress.cpp", kernels(isa))

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
    status, printed = stress(60, "place", operation)  # ends with the first report
    assert status == 66, printed


@pytest.fixture
def package(compiled: Callable[..., Path], kernels: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder with a nestvec whose kernels and bindings have the sanitizer's checks."""
    if importlib.util.find_spec("pybind11") is None:
        pytest.skip("needs pybind11")
    import pybind11

    isa = FOUND[-1]
    (tmp_path / "isas.h").write_text(f"#define NESTVEC_ISAS(X) X({isa})\n")
    folders = [tmp_path, SOURCES, pybind11.get_include(), sysconfig.get_paths()["include"]]
    options = [*SANITIZED, *(f"-I{folder}" for folder in folders), '-DNESTVEC_COMPILER="for a test"']
    sources = [SOURCES / "bindings.cpp", *SOURCES.glob("bind_*.cpp")]
    objects = [compiled(f"{source.stem}.o", *options, "-c", source) for source in sources]
    name = f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    core = compiled(name, "-fsanitize=thread", "-shared", *objects, kernels(isa))
    built = shutil.ignore_patterns("_core*.so", "__pycache__")
    shutil.copytree(Path(nestvec.__file__).parent, tmp_path / "nestvec", ignore=built)
    shutil.copy(core, tmp_path / "nestvec")
    return tmp_path


@pytest.mark.skipif(not FULL, reason="compiles the bindings too; runs with NESTVEC_TORTURE=full")
def test_threads_of_python_have_no_races(package: Path, note: Callable[[str], None]) -> None:
    """Python itself is not built for the sanitizer: reports that name no kernel are about its memory, not ours."""
    runtime = subprocess.run(["g++", "-print-file-name=libtsan.so"], capture_output=True, text=True)
    if runtime.returncode or not Path(runtime.stdout.strip()).exists():
        pytest.skip("needs GCC's libtsan.so")
    for name in SUBJECTS:
        command = python(HERE / "asking.py", name, 20, preload=Path(runtime.stdout.strip()), path=(package,))
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
        assert "csrc/kernels" not in done.stderr, done.stderr
        assert "rounds" in done.stdout, done.stderr
        note(f"{name}: {done.stdout.strip()}, no race in a kernel")
