"""Known items: every docstring of the standard library, split into its first sentence and the rest.

Python files are parsed, never imported, so collecting has no side effects. Only modules that are compiled
into the interpreter, and a few extension modules that merely define functions, are looked at as live objects.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
EXTENSION_MODULES = ("array", "binascii", "cmath", "math", "unicodedata", "zlib")
PUBLIC_MODULES = {
    "_collections_abc": "collections.abc",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "nt": "os",
    "posix": "os",
}

_SIGNATURE = re.compile(r"[\w.]+\(.*\)(\s*--?>.*)?")
_SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)[.!?](?=\s+[A-Z\"'`*<(\[])")

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Entry:
    """One documented object: qualified name, first sentence and the rest of the docstring."""

    name: str
    sentence: str
    remainder: str

    @property
    def label(self) -> str:
        """Name in words, then the first sentence: what a typed query is compared with."""
        return f"{re.sub(r'[._]+', ' ', self.name)} {self.sentence}"

    @property
    def is_known_item(self) -> bool:
        """Whether the sentence is a fair query for the remainder: neither trivial nor a quotation of it."""
        sentence = self.sentence.rstrip(".!?").lower()
        return (
            3 <= len(self.sentence.split()) <= 40
            and len(self.remainder.split()) >= 8
            and ">>>" not in sentence
            and sentence not in self.remainder.lower()
        )


def python_files(root: Path) -> list[Path]:
    """List the importable Python files under a library folder, tests and installed packages left out.

    Parameters
    ----------
    root : Path
        Folder of the standard library.

    Returns
    -------
    list of Path
        Sorted, so that the corpus has one order.

    Examples
    --------
    >>> python_files(Path("no/such/folder"))
    []
    """
    return sorted(
        path
        for path in root.rglob("*.py")
        if SKIPPED_FOLDERS.isdisjoint(parts := path.relative_to(root).with_suffix("").parts)
        and all(part.isidentifier() for part in parts)
    )


def parsed_docstrings(path: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Yield (qualified name, docstring) for a file's module, classes, methods and functions.

    Parameters
    ----------
    path, root : Path
        A Python file and the library folder that its module name starts from.

    Yields
    ------
    tuple of str
        Objects inside functions have no name to be found by and are left out; unparsable files have none.

    Examples
    --------
    >>> import textwrap
    >>> path = Path(textwrap.__file__)
    >>> next(parsed_docstrings(path, path.parent))[0]
    'textwrap'
    """
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    yield from _walk(tree, PUBLIC_MODULES.get(module, module))


def _walk(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, _Documented) and (docstring := ast.get_docstring(node)):
        yield name, docstring
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _walk(child, f"{name}.{child.name}")
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _walk(child, name)


def compiled_docstrings() -> Iterator[tuple[str, str]]:
    """Yield (qualified name, docstring) for objects that are written in C and have no Python source.

    Yields
    ------
    tuple of str
        Members of private modules appear under the public name that they are known by, or not at all.

    Examples
    --------
    >>> "builtins.max" in dict(compiled_docstrings())
    True
    """
    for module_name in (*sys.builtin_module_names, *EXTENSION_MODULES):
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        public = PUBLIC_MODULES.get(module_name, module_name.removeprefix("_"))
        exported = vars(sys.modules[public]) if public in sys.modules else {}
        for attribute, value in vars(module).items():
            documented = inspect.isroutine(value) or inspect.isclass(value)
            if documented and exported.get(attribute) is value:
                yield from _live_docstrings(value, f"{public}.{attribute}")


def _live_docstrings(value: object, name: str) -> Iterator[tuple[str, str]]:
    if docstring := inspect.getdoc(value):
        yield name, docstring
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            described = inspect.isroutine(member) or inspect.isdatadescriptor(member)
            if described and (docstring := inspect.getdoc(member)):
                yield f"{name}.{attribute}", docstring


def split_docstring(docstring: str) -> tuple[str, str]:
    """Split a docstring into its first sentence and the remainder, white space folded.

    Parameters
    ----------
    docstring : str
        Lines that only repeat the call's signature are dropped from the top.

    Returns
    -------
    tuple of str
        Without a full stop, the whole first paragraph is the sentence.

    Examples
    --------
    >>> split_docstring("Open a file. Raise OSError upon failure.")
    ('Open a file.', 'Raise OSError upon failure.')
    """
    lines = [line.strip() for line in docstring.splitlines()]
    while lines and (not lines[0] or _SIGNATURE.fullmatch(lines[0])):
        del lines[0]
    paragraph, _, rest = "\n".join(lines).partition("\n\n")
    end = _SENTENCE_END.search(paragraph)
    cut = end.end() if end else len(paragraph)
    return " ".join(paragraph[:cut].split()), " ".join(f"{paragraph[cut:]} {rest}".split())


def unique_entries(docstrings: Iterable[tuple[str, str]]) -> list[Entry]:
    """Keep each public object and each text once; the first occurrence wins.

    Parameters
    ----------
    docstrings : iterable of (str, str)
        Qualified names and docstrings.

    Returns
    -------
    list of Entry
        One object reached by two names has one text, so it is kept once too.

    Examples
    --------
    >>> [entry.name for entry in unique_entries([("a.f", "Do it."), ("b.f", "Do it."), ("a._g", "No.")])]
    ['a.f']
    """
    names: set[str] = set()
    texts: set[tuple[str, str]] = set()
    entries = []
    for name, docstring in docstrings:
        text = split_docstring(docstring)
        if text[0] and name not in names and text not in texts and _is_public(name):
            entries.append(Entry(name, *text))
            texts.add(text)
        names.add(name)
    return entries


def _is_public(name: str) -> bool:
    return not any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def known_items(entries: Iterable[Entry]) -> list[Entry]:
    """Select the entries whose first sentence is a fair and unambiguous query for their remainder.

    Parameters
    ----------
    entries : iterable of Entry
        From `unique_entries`.

    Returns
    -------
    list of Entry
        No sentence and no remainder occurs twice.

    Examples
    --------
    >>> known_items([Entry("a.f", "Do it.", "Too short a remainder.")])
    []
    """
    seen: set[str] = set()
    items = []
    for entry in entries:
        if entry.is_known_item and seen.isdisjoint((entry.sentence, entry.remainder)):
            items.append(entry)
            seen.update((entry.sentence, entry.remainder))
    return items
