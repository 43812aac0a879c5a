"""Progress on a terminal, for what takes longer than a moment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Lock, Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

PATIENCE = 0.5  # seconds before it is shown


class Bar:
    """A callable that shows progress on stderr while its block runs, if that is a terminal and rich is installed.

    Examples
    --------
    >>> with Bar() as bar:
    ...     bar(1, 3, "adding rows")
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._lock = Lock()
        self._timer: Timer | None = None

    def __enter__(self) -> Bar:
        """Begin to wait."""
        self._progress = _made() if sys.stderr.isatty() else None
        if self._progress:
            self._timer = Timer(PATIENCE, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __call__(self, done: int, total: int, what: str) -> None:
        """Say that `done` of `total` is done; 0 of 0 where nobody knows."""
        if self._progress is None:
            return
        if what != self._what or self._task is None:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._what = self._progress.add_task(what, total=total or None), what
        self._progress.update(self._task, completed=done, total=total or None)

    def counting(self, total: int, what: str) -> Callable[[int], None]:
        """A callable for any thread that is told what was done since the last call."""
        done = 0
        self(0, total, what)

        def more(count: int) -> None:
            nonlocal done
            with self._lock:
                done += count
                self(done, total, what)

        return more

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wipe it away."""
        if self._timer:
            self._timer.cancel()
        with self._lock:
            progress, self._progress = self._progress, None
            if progress:
                progress.stop()

    def _show(self) -> None:
        with self._lock:
            if self._progress:
                self._progress.start()


def _made() -> Progress | None:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
