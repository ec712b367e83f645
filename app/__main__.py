"""The command line. Each command imports only what it runs: an agent must not pay for the server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from app import __version__

cli = typer.Typer(
    name="velda-apiserver",
    help="Scales pools of Velda worker agents on Kubernetes and hands sessions to them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

@cli.command()
def serve(
    config: Annotated[Path, typer.Option(help="Path of velda-config.yaml.")] = Path("/etc/velda/velda-config.yaml"),
) -> None:
    """Run the server: webhooks, controller and broker."""
    from app.obs.logging import configure
    from app.service import serve as run
    from app.settings import Identity, SettingsError, load

    try:
        settings = load(config)
        configure(settings.log)
        asyncio.run(run(settings, Identity.from_environment()))
    except SettingsError as error:
        typer.echo(error, err=True)
        raise typer.Exit(2) from None


@cli.command()
def agent(
    pool: Annotated[str, typer.Option(help="The pool to join; velda.yaml's key pool if not given.")] = "",
    config: Annotated[Path, typer.Option(help="Path of velda.yaml.")] = Path("/run/velda/velda.yaml"),
    name: Annotated[str, typer.Option(help="The agent's id; the host's name if not given.")] = "",
) -> None:
    """Run one agent: join the broker and take sessions, each a child process."""
    from app.agent.cli import run

    raise typer.Exit(run(pool=pool, config=config, name=name))


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    cli()


if __name__ == "__main__":
    main()
