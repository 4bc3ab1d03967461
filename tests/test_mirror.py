"""Each source file has its mirror test, or a row of `tests.mirror.TESTED_BY` names what tests it."""

from __future__ import annotations

import pytest

from tests.mirror import SOURCES, TESTED_BY, TESTS, mirror_of, rows_of, sources, where_tested


def test_every_source_file_has_tests() -> None:
    without = [source for source in sources() if not where_tested(source) and (SOURCES / source).read_text().strip()]
    assert not without, f"write tests/{mirror_of(without[0])}, or a row in tests/mirror.py"


def test_the_table_names_tests_that_are_there() -> None:
    assert [test for tests in TESTED_BY.values() for test in tests if not (TESTS / test).exists()] == []


def test_every_row_of_the_table_is_needed() -> None:
    """A file that has gone, or has got its mirror, needs no row."""
    used = {row for source in sources() if not (TESTS / mirror_of(source)).exists() for row in rows_of(source)}
    assert sorted(set(TESTED_BY) - used) == []


@pytest.mark.parametrize(
    ("source", "tests"),
    [
        ("errors.py", ["test_errors.py"]),  # its mirror
        ("ops/sign.py", ["ops/test_sign.py"]),  # a pattern fits, but it has a mirror
        ("ops/concat.py", ["ops/test_ops.py", "ops/test_serialize.py"]),
        ("zoo/bireal.py", ["test_binary_networks.py"]),  # its own row before the pattern
        ("nothing.py", []),
    ],
)
def test_where_the_where_tested_a_file_are(source: str, tests: list[str]) -> None:
    assert where_tested(source) == tests
