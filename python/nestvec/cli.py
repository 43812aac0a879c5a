"""The `nestvec` command: `nestvec info`, `nestvec verify` and `nestvec demo`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import click

    from .storage import File


def main(args: Sequence[str] | None = None) -> None:
    """Run the `nestvec` command.

    Parameters
    ----------
    args : sequence of str, optional
        Arguments after the program's name; `sys.argv[1:]` by default.

    Raises
    ------
    SystemExit
        With one line on stderr: code 1 for a file that is damaged or none of nestvec's, 2 for wrong arguments, missing
        files and missing packages; 130 after Ctrl-C.

    Examples
    --------
    >>> main(["--help"])  # doctest: +SKIP
    """
    try:
        import click
    except ImportError:
        _fail('the nestvec command needs click: pip install "nestvec[demo]"')
    from .demo import DemoError
    from .storage import FileError

    try:
        # click's own error report takes several lines, so errors are reported here.
        given = sys.argv[1:] if args is None else args
        code = commands().main(given or ["--help"], prog_name="nestvec", standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
    except FileError as error:
        _fail(str(error), 1)
    except (DemoError, ValueError) as error:  # ValueError: a backend that NESTVEC_BACKEND names and nobody has
        _fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    if code:
        sys.exit(code)


def commands() -> click.Group:
    """Build the command tree; a function, so that importing this module does not need click.

    Returns
    -------
    click.Group
        The commands `info`, `verify` and `demo`.

    Examples
    --------
    >>> sorted(commands().commands)
    ['demo', 'info', 'verify']
    """
    import click

    as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")
    info = click.Command(
        "info",
        callback=_info,
        params=[click.Argument(["file"], required=False), as_json],
        help="Show version, backend and why, compiler, cores; or what an index in FILE is, by its header alone.",
    )
    verify = click.Command(
        "verify",
        callback=_verify,
        params=[click.Argument(["file"]), as_json],
        help="Check everything in an index's FILE. Exit status 1 if it is damaged.",
    )
    return click.Group("nestvec", commands=[info, verify, _demo_command()], help="Nested vector search.")


def _demo_command() -> click.Command:
    import click

    from . import demo

    levels = click.Choice([str(level) for level in demo.LEVELS])
    return click.Command(
        "demo",
        callback=_demo,
        help="Search the docstrings of Python's standard library by meaning.\n\n"
        "Prints what each nested depth costs and finds, or with --multi-vector what MaxSim of token vectors does, "
        "then answers QUERY, or prompts for queries on a terminal.",
        params=[
            click.Argument(["query"], required=False),
            click.Option(["--k"], type=click.IntRange(min=1), default=5, show_default=True, help="Results per query."),
            click.Option(["--dims"], type=levels, help="Leading dims to search; default all."),
            click.Option(
                ["--recall"],
                type=click.FloatRange(0, 1, min_open=True),
                help="Tune a plan that finds this share of the nearest, and search by such; default exact.",
            ),
            click.Option(["--multi-vector"], is_flag=True, help="Search bags of token vectors by MaxSim."),
            click.Option(["--table/--no-table"], default=True, help="Measure first."),
            click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
        ],
    )


def _info(file: str | None, as_json: bool) -> None:
    import nestvec as nv

    if file is None:
        _show(nv.show_config(), as_json)
        return
    with _opened(file, "header") as opened:
        facts, meta = _facts(opened), opened.meta
        sections = list(opened.sections.values())
    if as_json:
        rows = [{"name": s.name, "dtype": s.dtype, "shape": s.shape, "bytes": s.nbytes} for s in sections]
        _show({**facts, "meta": meta, "sections": rows}, as_json)
        return
    _show(facts, as_json)
    _show({json.dumps(key)[1:-1]: json.dumps(value) for key, value in meta.items()}, as_json)  # no control characters
    cells = [(section.name, section.dtype, str(section.shape)) for section in sections]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row, section in zip(cells, sections, strict=True):
        print("  ", *(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), f"{section.nbytes:,} bytes")


def _verify(file: str, as_json: bool) -> None:
    from . import files
    from .storage import FileError

    began = perf_counter()
    try:
        with _opened(file, "full", mmap=True) as opened:
            files.restored(opened)
            facts = _facts(opened)
    except FileError as error:
        if not as_json:
            raise
        print(json.dumps({"ok": False, "error": str(error)}))
        sys.exit(1)
    seconds = perf_counter() - began
    if as_json:
        print(json.dumps({"ok": True, **facts, "seconds": round(seconds, 6)}))
    else:
        print(f"ok: {facts['kind']}, format {facts['format']}, {facts['bytes']:,} bytes, {seconds:.3f} s")


@contextmanager
def _opened(path: str, verify: str, *, mmap: bool = False) -> Iterator[File]:
    """A file; what the system says against it is one line."""
    import click

    from .storage import open_file

    try:
        file = open_file(path, mmap=mmap, verify=verify)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    with file:
        yield file


def _facts(file: File) -> dict[str, Any]:
    return {"file": file.label, "kind": file.kind, "format": ".".join(map(str, file.version)), "bytes": file.size}


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, indent=2, default=str))
    else:
        for key, value in values.items():
            print(f"{key}: {value}")


def _demo(query: str | None, dims: str | None, **options: Any) -> None:
    from . import demo

    demo.run(query, dims=int(dims) if dims else None, **options)


def _fail(message: str, code: int = 2) -> NoReturn:
    print(f"nestvec: {message}", file=sys.stderr)
    sys.exit(code)
