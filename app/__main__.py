"""The command line. Each command imports only what it runs: an agent must not pay for the server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal

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
def uninstall(
    pools: Annotated[Literal["delete", "release"], typer.Option(help="Delete them, or take our finalizer off them.")],
    namespace: Annotated[list[str] | None, typer.Option(help="One of theirs, repeatable; all if not given.")] = None,
    config_map: Annotated[str, typer.Option(help="ConfigMaps that go with the pools, where we made them.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds that pools have to end in order.")] = 120,
) -> None:
    """Let go of all AgentPools, before or after the release is removed."""
    from app.obs.logging import configure
    from app.settings import Log
    from app.uninstall import run

    configure(Log())
    raise typer.Exit(run(pools=pools, namespaces=namespace or [], config_map=config_map, timeout=timeout))


@cli.command()
def selftest(
    namespace: Annotated[str, typer.Option(help="Where AgentPools are tried; none is stored.")],
    broker: Annotated[str, typer.Option(help="HOST:PORT of the broker.")],
    webhook: Annotated[str, typer.Option(help="Host of the webhooks.")],
    ca: Annotated[Path, typer.Option(help="The CA of their certificate.")],
    timeout: Annotated[float, typer.Option(help="Seconds until a check that does not pass has failed.")] = 60,
) -> None:
    """Check an installed release from inside of the cluster."""
    from app.selftest import run

    raise typer.Exit(run(namespace=namespace, broker=broker, webhook=webhook, ca=ca, timeout=timeout))


@cli.command()
def explain(
    pool: Annotated[str, typer.Argument(help="The AgentPool: NAME or NAMESPACE/NAME.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
) -> None:
    """Say why a pool has the size that it has."""
    from app.explain import ExplainError, run
    from app.settings import SettingsError

    try:
        typer.echo(run(pool=pool, namespace=namespace))
    except (ExplainError, SettingsError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None


Numbers = list[int] | None


@cli.command()
def replay(
    traces: Annotated[list[Path], typer.Argument(help="A pool's trace, all its files.")],
    min_idle: Annotated[Numbers, typer.Option(help="Another minIdle; may be given several times.")] = None,
    max_idle: Annotated[Numbers, typer.Option(help="Another maxIdle.")] = None,
    min_replicas: Annotated[Numbers, typer.Option(help="Another minReplicas.")] = None,
    max_replicas: Annotated[Numbers, typer.Option(help="Another maxReplicas.")] = None,
    idle_decay_second: Annotated[Numbers, typer.Option(help="Another idleDecaySecond.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a plot as SVG.")] = None,
) -> None:
    """Replay a recorded trace against other numbers: idle agent-hours spent, seconds waited."""
    from app.replay import run

    given = {
        "min_idle": min_idle,
        "max_idle": max_idle,
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "idle_decay_second": idle_decay_second,
    }
    numbers = {field: values for field, values in given.items() if values}
    raise typer.Exit(run(traces, numbers=numbers, as_json=as_json, plot=plot))


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    cli()


if __name__ == "__main__":
    main()
