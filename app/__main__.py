"""The command line. Each command imports only what it runs: an agent must not pay for the server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from app import __version__
from app.check import EXIT_CODES as CHECK_EXIT_CODES
from app.client.commands import pool, session

cli = typer.Typer(
    name="velda-apiserver",
    help="Scales pools of Velda worker agents on Kubernetes and hands sessions to them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(session)
cli.add_typer(pool)


@cli.command()
def serve(
    config: Annotated[Path, typer.Option(help="Path of velda-config.yaml.")] = Path("/etc/velda/velda-config.yaml"),
) -> None:
    """Run the server: webhooks, controller and broker."""
    # gRPC reads it when it is imported. Its lines are not of our format, and one comes for each handshake that fails.
    os.environ.setdefault("GRPC_VERBOSITY", "error")
    from app.obs.logging import configure
    from app.service import serve as run
    from app.settings import Identity, SettingsError, load

    try:
        settings = load(config)
        configure(settings.log)
        asyncio.run(run(settings, Identity.from_environment(), config=config))
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
def agent_certificate(
    url: Annotated[str, typer.Option(help="Where it is issued: https://HOST/agents/v1/certificate.")],
    ca: Annotated[Path, typer.Option(help="The CA of that server's certificate.")],
    token: Annotated[Path, typer.Option(help="The pod's token.")],
    directory: Annotated[Path, typer.Option(help="Where tls.crt and tls.key are written.")],
    timeout: Annotated[float, typer.Option(help="Seconds to try for.")] = 120,
) -> None:
    """Get the certificate of an agent's pod, before the agent starts."""
    from app.agent.certificate import run

    raise typer.Exit(run(url=url, ca=ca, token=token, directory=directory, timeout=timeout))


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
    broker_security: Annotated[
        Literal["plaintext", "tls", "mtls"], typer.Option(help="How the broker's port is served.")
    ] = "plaintext",
    timeout: Annotated[float, typer.Option(help="Seconds until a check that does not pass has failed.")] = 60,
) -> None:
    """Check an installed release from inside of the cluster."""
    from app.selftest import run

    raise typer.Exit(
        run(namespace=namespace, broker=broker, security=broker_security, webhook=webhook, ca=ca, timeout=timeout)
    )


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


@cli.command(epilog=CHECK_EXIT_CODES)
def check(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="YAML or JSON; a directory: all in it; -: standard input.")
    ],
    output: Annotated[Literal["text", "json", "sarif"], typer.Option("--output", "-o", help="What to print.")] = "text",
) -> None:
    """Say what is wrong with AgentPools in files, as `kubectl apply` would, without a cluster."""
    from app.check.command import run

    raise typer.Exit(run(files, output=output))


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    cli()


if __name__ == "__main__":
    main()
