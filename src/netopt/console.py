"""Tables and progress bars, made with rich."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table


def render_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", text_columns: int = 1
) -> str:
    """A table as plain text; the first `text_columns` columns are set left, the others right."""
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


@contextmanager
def progress(description: str, total: int) -> Iterator[Progress]:
    """A progress bar on standard error, gone when done and silent where that is no terminal.

    Its one task has id 0: `bar.update(TaskID(0), advance=1, description=...)`.
    """
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(description, total=total)
        yield bar


def count(number: int) -> str:
    """12345 as '12,345'."""
    return f"{number:,}"
