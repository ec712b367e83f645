"""The command line, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import typer
from typer.core import TyperCommand, TyperGroup

from app.__main__ import cli
from crd.reference.tables import HEADER, table

INTRODUCTION = """\
# Command line

`velda-apiserver COMMAND --help` prints the same; in a checkout it is `python -m app COMMAND`.

"""


def page() -> str:
    """The page's text."""
    return "".join([HEADER, INTRODUCTION, *_commands(typer.main.get_command(cli), "")])


def _commands(command: object, path: str) -> Iterator[str]:
    """A section for each command that does something."""
    if isinstance(command, TyperGroup):
        for name, each in command.commands.items():
            yield from _commands(each, f"{path} {name}".strip())
    elif isinstance(command, TyperCommand):
        yield from _command(command, path)


def _command(command: TyperCommand, path: str) -> Iterator[str]:
    context = typer.Context(command, info_name=f"velda-apiserver {path}")
    usage = " ".join([f"velda-apiserver {path}", *command.collect_usage_pieces(context)])
    yield f"## {path}\n\n{inspect.cleandoc(command.help or '')}\n\n```text\n{usage}\n```\n\n"
    records = [each.get_help_record(context) for each in command.get_params(context) if "--help" not in each.opts]
    if shown := [(f"`{record[0]}`", record[1]) for record in records if record]:
        yield table(["Option", "What it is"], shown)
