"""``kubectl velda …``: kubectl runs the executable kubectl-velda, and kubectl_complete-velda to complete its words."""

from __future__ import annotations

import os
import shlex
import sys

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]

from app.__main__ import check, explain
from app.check import EXIT_CODES
from app.client.commands import pool, session

NAME = "kubectl velda"
NO_FILES = 4
"""Tells the shell to offer nothing else (source: cobra's ShellCompDirectiveNoFileComp)."""

plugin = typer.Typer(
    name=NAME,
    help="AgentPools and sessions of velda-apiserver.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
plugin.add_typer(pool)
plugin.add_typer(session)
plugin.command()(explain)
plugin.command(epilog=EXIT_CODES)(check)


def main() -> None:
    plugin(prog_name=NAME)


def complete() -> None:
    """Print what the last argument may become, one a line, and then what else the shell may offer.

    typer's own completion answers: it reads the words from the environment.
    """
    completion_init()
    words = [NAME, *sys.argv[1:]]
    os.environ["_KUBECTL_VELDA_COMPLETE"] = "complete_bash"
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = shlex.join(words), str(len(words) - 1)
    try:
        plugin(prog_name=NAME, args=[], complete_var="_KUBECTL_VELDA_COMPLETE")
    finally:
        print(f":{0 if 'check' in words[1:2] else NO_FILES}")
