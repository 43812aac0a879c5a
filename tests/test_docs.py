"""Every example that the documentation shows runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nestvec
from nestvec import backends

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
MODULES = ["nestvec", *(module.name for module in pkgutil.walk_packages(nestvec.__path__, "nestvec."))]
EXTRAS = ("nestvec.cli", "nestvec.demo")  # modules that may need more than the package itself


@pytest.fixture(autouse=True)
def no_choice_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples may choose a backend."""
    monkeypatch.setattr(backends, "_current", None)


def module_of(name: str) -> ModuleType:
    if not name.startswith(EXTRAS):
        return importlib.import_module(name)
    pytest.importorskip("click")
    return pytest.importorskip(name)


def blocks(text: str) -> list[str]:
    """Python blocks, each at its own line of the file."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, block.start(1)) + block[1] for block in found]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith(("_core", "__main__"))])
def test_docstrings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = doctest.testmod(module_of(name))
    assert result.failed == 0, capsys.readouterr().out


def test_public_names_have_examples() -> None:
    names = [name for name in nestvec.__all__ if not name.startswith("__")]
    without = [name for name in names if ">>> " not in (getattr(nestvec, name).__doc__ or "")]
    assert without == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_texts(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(path.read_text(encoding="utf-8")):
        exec(compile(block, path, "exec"), names)


def anchors(path: Path) -> set[str]:
    """What links to headings of a page end with."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links(path: Path) -> None:
    """Links within the repository, but for what source packages leave out."""
    found = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    for target, _, anchor in (link.partition("#") for link in found if "://" not in link and "/.ci/" not in link):
        page = path.parent / target if target else path
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), f"{target}#{anchor}"


def test_all_pages_are_listed() -> None:
    listed = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [path.name for path in TEXTS[1:] if path.name != "index.md" and f"({path.name})" not in listed] == []


def test_readme_has_an_example() -> None:
    assert blocks(TEXTS[0].read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout
