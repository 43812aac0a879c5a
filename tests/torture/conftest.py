"""Fixtures of the torture tests: a compiler, and figures to print."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools import HANGS, HERE

_figures: list[str] = []


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a figure at the end of the run."""
    return lambda figure: _figures.append(f"{request.node.name}: {figure}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(_figures))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """``compiled(name, *arguments)``: what the system's compiler makes of sources in this folder."""
    folder = tmp_path_factory.mktemp("compiled")

    def compile_(name: str, *arguments: str | Path, language: str = "c++") -> Path:
        variable = {"c++": "CXX", "c": "CC"}[language]
        compiler = shlex.split(os.environ.get(variable, {"c++": "c++", "c": "cc"}[language]))
        if shutil.which(compiler[0]) is None:
            pytest.skip(f"no {language} compiler; set {variable}")
        target = folder / name
        if not target.exists():
            command = [*compiler, *map(str, arguments), "-o", str(target)]
            done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=HANGS)
            assert done.returncode == 0, done.stderr
        return target

    yield compile_
    shutil.rmtree(folder, ignore_errors=True)
