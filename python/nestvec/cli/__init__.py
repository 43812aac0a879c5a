"""The `nestvec` command: look at files, build, search, tune, profile, measure."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .output import note

if TYPE_CHECKING:
    import click

BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended


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
        files and missing packages; 130 after Ctrl-C. Silently: 141 where nobody reads the output any more.

    Examples
    --------
    >>> main(["--help"])  # doctest: +SKIP
    """
    try:
        import click
    except ImportError:
        _fail('the nestvec command needs click: pip install "nestvec[cli]"')
    from ..demo import DemoError
    from ..storage import FileError

    try:
        # click's own error report takes several lines, so errors are reported here.
        given = sys.argv[1:] if args is None else args
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _warned
            code = commands().main(given or ["--help"], prog_name="nestvec", standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
    except FileError as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except MemoryError as error:
        _fail(f"not enough memory{f': {error}' if str(error) else ''}")
    except (DemoError, ValueError, TypeError) as error:  # what nestvec says against vectors, plans, backends
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

    Examples
    --------
    >>> sorted(commands().commands)
    ['bench', 'build', 'demo', 'info', 'profile', 'search', 'tune', 'verify']
    """
    import click

    from . import bench, build, demo, look, profile, search, tune

    class Commands(click.Group):
        def invoke(self, ctx: click.Context) -> None:
            try:
                super().invoke(ctx)
                sys.stdout.flush()
            except BrokenPipeError:
                _drop_output()
                ctx.exit(BROKEN_PIPE)

        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(self.commands)  # in the order in which they are used

    version = click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
    )
    group = Commands(
        "nestvec",
        params=[version],
        help="Nested vector search: exact, or as fast as a recall that you name allows.\n\n"
        "Vectors are read from .npy, .npz, Parquet or text, one a line; '-' is stdin.",
        epilog="nestvec COMMAND --help says more. Exit status: 0; 1 for a damaged file; 2 for anything else that is "
        "wrong; 130 after Ctrl-C.",
    )
    for command in (
        build.build, search.search, tune.tune, profile.profile, bench.bench, look.info, look.verify, demo.demo
    ):  # fmt: skip
        group.add_command(command)
    return group


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"nestvec {__version__}")
        ctx.exit()


def _drop_output() -> None:
    """Let what is still buffered go nowhere, so that Python does not complain about it at exit."""
    import os

    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # not a file of the system
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _warned(message: Warning | str, *_: Any, **__: Any) -> None:
    note(f"warning: {message}")


def _fail(message: str, code: int = 2) -> NoReturn:
    note(message)
    sys.exit(code)
