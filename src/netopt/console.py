"""Tables and progress bars, made with rich, which is loaded with the first of them: no other file imports it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def render_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", text_columns: int = 1
) -> str:
    """A table as plain text; the first `text_columns` columns are set left, the others right."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  # see the first line of this file
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < text_columns else "right", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    # As wide as it is: a report that is cut or wrapped to a terminal's width loses figures.
    width = sum(4 + max(map(cell_len, column)) for column in zip(columns, *cells, strict=True))
    out = io.StringIO()
    console = Console(
        file=out, width=width, color_system=None, markup=False, emoji=False, highlight=False, force_jupyter=False
    )
    console.print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    return "\n".join([title, *lines] if title else lines)


class Bar:
    """A progress bar with one task."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def update(self, *, completed: int | None = None, description: str | None = None) -> None:
        """Say how many steps are done, or what is being done."""
        self._bars.update(self._task, completed=completed, description=description)

    def advance(self, *, description: str | None = None) -> None:
        """One step more is done."""
        self._bars.update(self._task, advance=1, description=description)

    @property
    def completed(self) -> int:
        """Steps that are done."""
        return int(self._bars.tasks[self._task].completed)

    @property
    def total(self) -> int:
        """Steps in all."""
        return int(self._bars.tasks[self._task].total or 0)

    @property
    def description(self) -> str:
        """What is being done."""
        return self._bars.tasks[self._task].description


# The innermost progress bar of this thread.
_running: ContextVar[Bar | None] = ContextVar("running", default=None)


@contextmanager
def progress(description: str, total: int) -> Iterator[Bar]:
    """A progress bar on standard error, gone when done and silent where that is no terminal."""
    from rich import progress as rich  # noqa: PLC0415  # see the first line of this file
    from rich.console import Console  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (
        rich.SpinnerColumn(),
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
    )
    with rich.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = Bar(bars, bars.add_task(description, total=total))
        token = _running.set(bar)
        try:
            yield bar
        finally:
            _running.reset(token)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Say, behind the description of the progress bar that is running, if one is, what is being done inside."""
    bar = _running.get()
    if bar is None:
        yield
        return
    before = bar.description
    bar.update(description=f"{before}: {what}")
    try:
        yield
    finally:
        bar.update(description=before)


def count(number: int) -> str:
    """12345 as '12,345'."""
    return f"{number:,}"
