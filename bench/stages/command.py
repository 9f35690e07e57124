"""How every stage is run: options from type hints, a user's mistake as one line."""

from collections.abc import Callable

import typer
from rich.console import Console

from bench.errors import UserError
from bench.machine import keep_memory


def run_command(function: Callable[..., None]) -> None:
    """Run `function` with the command line's options; a UserError becomes one line on stderr and exit code 1."""
    keep_memory()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(function)
    try:
        app()
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        raise SystemExit(1) from None
