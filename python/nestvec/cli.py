"""The `nestvec` command: `nestvec info` and `nestvec demo`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click


def main(args: Sequence[str] | None = None) -> None:
    """Run the `nestvec` command.

    Parameters
    ----------
    args : sequence of str, optional
        Arguments after the program's name; `sys.argv[1:]` by default.

    Raises
    ------
    SystemExit
        With code 2 and one line on stderr for wrong arguments and missing packages, 130 after Ctrl-C.

    Examples
    --------
    >>> main(["--help"])  # doctest: +SKIP
    """
    try:
        import click
    except ImportError:
        _fail('the nestvec command needs click: pip install "nestvec[demo]"')
    from .demo import DemoError

    try:
        # click's own error report takes several lines, so errors are reported here.
        given = sys.argv[1:] if args is None else args
        code = commands().main(given or ["--help"], prog_name="nestvec", standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
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
        The commands `info` and `demo`.

    Examples
    --------
    >>> sorted(commands().commands)
    ['demo', 'info']
    """
    import click

    as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")
    info = click.Command(
        "info", callback=_info, params=[as_json], help="Show version, backend and why, compiler, cores."
    )
    return click.Group("nestvec", commands=[info, _demo_command()], help="Nested vector search.")


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
            click.Option(["--multi-vector"], is_flag=True, help="Search bags of token vectors by MaxSim."),
            click.Option(["--table/--no-table"], default=True, help="Measure first."),
            click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
        ],
    )


def _info(as_json: bool) -> None:
    import nestvec as nv

    config = nv.show_config()
    if as_json:
        print(json.dumps(config, indent=2, default=str))
    else:
        for key, value in config.items():
            print(f"{key}: {value}")


def _demo(query: str | None, k: int, dims: str | None, multi_vector: bool, table: bool, as_json: bool) -> None:
    from . import demo

    leading = int(dims) if dims else None
    demo.run(query, k=k, dims=leading, multi_vector=multi_vector, table=table, as_json=as_json)


def _fail(message: str) -> NoReturn:
    print(f"nestvec: {message}", file=sys.stderr)
    sys.exit(2)
