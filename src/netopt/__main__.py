"""`netopt` and `python -m netopt`: the command line, which needs an extra."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line on the arguments of the process, and end it."""
    try:
        import typer  # noqa: F401, PLC0415  # an extra
    except ImportError:
        print("netopt: typer is not installed; pip install 'netopt[cli]'", file=sys.stderr)
        sys.exit(1)
    from netopt.cli import app  # noqa: PLC0415  # it needs typer

    app(prog_name="netopt")


if __name__ == "__main__":
    main()
