import builtins
from contextlib import suppress

import pytest

from netopt.console import count, doing, progress, render_table


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich looks at these to decide what is a terminal."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def _cells(line: str) -> list[str]:
    return line.split()


def test_table() -> None:
    text = render_table(["layer", "bytes"], [("fc1", 7), ("classifier", 12345)])
    head, rule, first, second = text.splitlines()
    assert [_cells(line) for line in (head, first, second)] == [
        ["layer", "bytes"],
        ["fc1", "7"],
        ["classifier", "12345"],
    ]
    assert set(rule.strip()) == {"─"}
    # names to the left, figures to the right
    assert first.index("fc1") == second.index("classifier") == head.index("layer")
    assert len(head) == len(first) == len(second)


def test_text_columns_are_set_left() -> None:
    rows = [("dense", "fc1", 1), ("relu", "features.activation", 100)]
    one = render_table(["op", "layer", "bytes"], rows).splitlines()
    two = render_table(["op", "layer", "bytes"], rows, text_columns=2).splitlines()
    assert one[-2].index("fc1") + len("fc1") == one[-1].index("activation") + len("activation")
    assert two[-2].index("fc1") == two[-1].index("features")


def test_title_stands_above() -> None:
    lines = render_table(["a"], [(1,)], title="memory of the network").splitlines()
    assert lines[0] == "memory of the network"
    assert _cells(lines[1]) == ["a"]


def test_without_rows_the_head_stands() -> None:
    assert _cells(render_table(["layer", "bytes"], []).splitlines()[0]) == ["layer", "bytes"]


def test_lines_end_where_their_text_ends() -> None:
    lines = render_table(["a", "b"], [("x", ""), ("", "y")]).splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert all(lines)


@pytest.mark.parametrize("cell", ["[bold]fc1[/bold]", "[red]", "tile[8, 16]", "a:x:b", ":ok:", "fc.\\[0]"], ids=repr)
def test_cells_are_printed_as_they_are(cell: str) -> None:
    assert render_table(["layer"], [(cell,)]).splitlines()[-1].strip() == cell


def test_wide_tables_are_neither_cut_nor_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    row = tuple(f"{i}" * 30 for i in range(8))
    lines = render_table([f"column{i}" for i in range(8)], [row]).splitlines()
    assert len(lines) == 3
    assert tuple(_cells(lines[-1])) == row


def test_no_cell_is_too_long() -> None:
    """Names of layers in deep models are long, and a schedule is a line of its own."""
    name, schedule = "encoder.layers.0." * 20 + "fc", "s" * 150
    assert _cells(render_table(["layer", "schedule"], [(name, schedule)]).splitlines()[-1]) == [name, schedule]


def test_no_cell_is_too_long_in_letters_that_take_two_columns() -> None:
    name = "\u5c42" * 50
    assert _cells(render_table(["layer"], [(name,)]).splitlines()[-1]) == [name]


def test_a_notebook_gets_the_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook rich displays what it prints instead of writing it to the file that it was given."""
    # rich knows a notebook by the name of this class.
    shell = type("ZMQInteractiveShell", (), {})
    monkeypatch.setattr(builtins, "get_ipython", shell, raising=False)
    assert _cells(render_table(["layer"], [("fc1",)]).splitlines()[-1]) == ["fc1"]


def test_what_is_being_done_stands_behind_the_description() -> None:
    with doing("nothing is running"), progress("outer", 3) as bar, progress("inner", 2) as inner:
        with doing("work"):
            assert (bar.description, inner.description) == ("outer", "inner: work")
            with suppress(KeyError), doing("part"):
                assert inner.description == "inner: work: part"
                raise KeyError
            assert inner.description == "inner: work"
        assert inner.description == "inner"
    with progress("outer", 3) as bar:
        with progress("inner", 2):
            pass
        with doing("work"):
            assert bar.description == "outer: work"


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("tuning", total=3) as bar:
        for _ in range(3):
            bar.advance(description="fc1")
        assert bar.total == 3
        assert bar.completed == 3
        assert bar.description == "fc1"
    assert capsys.readouterr() == ("", "")


def test_progress_can_be_set() -> None:
    with progress("retrain", total=3) as bar:
        bar.update(completed=2, description="epoch 2")
        assert (bar.completed, bar.description) == (2, "epoch 2")
        bar.update(description="epoch 3")
        bar.advance()
        assert (bar.completed, bar.description) == (3, "epoch 3")


def test_progress_lets_errors_through() -> None:
    with pytest.raises(ZeroDivisionError), progress("tuning", total=3):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1000, "1,000"), (12345678, "12,345,678"), (-1234, "-1,234")]
)
def test_count(number: int, text: str) -> None:
    assert count(number) == text
