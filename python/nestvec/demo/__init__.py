"""`nestvec demo`: search the docstrings of Python's standard library at several nested depths."""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

LEVELS = (32, 64, 128, 256)
PACKAGES = {
    "ir_measures": "ir-measures",
    "rich": "rich",
    "safetensors": "safetensors",
    "threadpoolctl": "threadpoolctl",
    "tokenizers": "tokenizers",
    "wordllama": "wordllama",
}


class DemoError(RuntimeError):
    """The demo cannot run; the message is one sentence that says why and what to do."""


def run(query: str | None, *, k: int = 5, dims: int = 256, table: bool = True, as_json: bool = False) -> None:
    """Index the docstrings, measure every depth and searches by signs, answer queries.

    Parameters
    ----------
    query : str or None
        None prompts for queries in a loop when the program talks to a terminal.
    k : int
        Answers per query.
    dims : int
        Leading dims that typed queries are searched in.
    table : bool
        Whether to measure.
    as_json : bool
        Print one JSON object instead of text, and never prompt.

    Raises
    ------
    DemoError
        When packages or docstrings are missing, or the query is blank.

    Examples
    --------
    >>> run("merge sorted iterables", table=False)  # doctest: +SKIP
    """
    if query is not None and not query.strip():
        raise DemoError("the query is empty")
    require_packages()
    from rich.console import Console

    from . import library, report

    # Progress goes to stderr, so that standard output holds the results alone.
    progress = Console(stderr=True)
    docstrings = library.build(Path(sysconfig.get_paths()["stdlib"]), progress)
    depths, methods = docstrings.measure(progress) if table else ([], {})
    answers = docstrings.search(query, k, dims) if query else []
    if as_json:
        print(json.dumps(report.as_dict(docstrings, depths, methods, answers), indent=2))
        return
    console = Console()
    console.print(report.summary(docstrings), highlight=False)
    if depths:
        console.print(report.depth_table(depths), report.notes(depths), sep="\n", highlight=False)
        console.print("", report.method_table(methods), report.method_notes(methods), sep="\n", highlight=False)
    if query:
        console.print(report.answer_table(answers))
    elif sys.stdin.isatty() and sys.stdout.isatty():
        converse(
            lambda: console.input("\nquery> "),
            lambda text: console.print(report.answer_table(docstrings.search(text, k, dims))),
        )


def require_packages() -> None:
    """Check that the demo's packages are installed, without importing them.

    Raises
    ------
    DemoError
        Naming those that are missing.
    """
    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise DemoError(f'the demo needs {", ".join(missing)}: pip install "nestvec[demo]"')


def converse(ask: Callable[[], str], answer: Callable[[str], object]) -> None:
    """Answer queries until an empty line, the end of input or Ctrl-C.

    Parameters
    ----------
    ask : callable
        Returns the next line typed.
    answer : callable
        Called with each query.

    Examples
    --------
    >>> lines = iter(["sort a list", ""])
    >>> converse(lambda: next(lines), print)
    sort a list
    """
    try:
        while query := ask().strip():
            answer(query)
    except (EOFError, KeyboardInterrupt):
        # The prompt has no line break of its own.
        print()
