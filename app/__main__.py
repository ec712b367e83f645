"""The command line. Each command imports only what it runs: an agent must not pay for the server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from app import __version__
from app.settings import DEFAULT_PATH, Identity, SettingsError, load

cli = typer.Typer(
    name="velda-apiserver",
    help="Scales pools of Velda worker agents on Kubernetes and hands sessions to them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path, typer.Option("--config", help="Path of velda-config.yaml.")]


@cli.command()
def serve(config: ConfigOption = Path(DEFAULT_PATH)) -> None:
    """Run the server: webhooks, controller and broker."""
    from app.obs.logging import configure
    from app.service import serve as run

    try:
        settings = load(config)
        configure(settings.log)
        asyncio.run(run(settings, Identity.from_environment()))
    except SettingsError as error:
        typer.echo(error, err=True)
        raise typer.Exit(2) from None


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    cli()


if __name__ == "__main__":
    main()
