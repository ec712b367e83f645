"""The client's commands: ``session run|list|kill`` and ``pool list|watch``. Each imports only what it runs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from app.client.errors import EXIT_CODES, ClientError, Exit
from app.client.options import Connection, Format, connected

session = typer.Typer(name="session", help="Run sessions, list them, end them.", no_args_is_help=True)
pool = typer.Typer(name="pool", help="See pools as sessions do.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("--output", "-o", help="What to print.")]
INT64 = 2**63 - 1
Instance = Annotated[int, typer.Option(min=0, max=INT64, help="The instance that sessions belong to.")]


@session.command("run", epilog=EXIT_CODES)
@connected
def run_session(
    to: Connection,
    pool: Annotated[str, typer.Argument(help="NAME or NAMESPACE/NAME.")],
    service: Annotated[str, typer.Option(help="Use the session that runs under this name; else start it so.")] = "",
    session_id: Annotated[str, typer.Option(help="Its id; the session of that id, if it runs. Else a new one.")] = "",
    priority: Annotated[int, typer.Option(min=-INT64, max=INT64, help="Those of a higher one start first.")] = 0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until it must run.")] = 300,
    label: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; may be given several times.")] = None,
    new: Annotated[bool, typer.Option("--new", help="A new session, also where one of the service runs.")] = False,
    instance_id: Instance = 0,
    output: Output = "table",
) -> None:
    """Request a session, wait until it runs, and print where. Ctrl-C gives up its place in the queue."""
    import uuid

    from app.client.sessions import run
    from app.proto.velda_pb2 import SessionRequest

    request = SessionRequest(
        pool=pool,
        # Made here, so that a repetition is known as one.
        session_id=session_id or str(uuid.uuid4()),
        service_name=service,
        priority=priority,
        labels=label or [],
        tags=_tags(tag or []),
        force_new_session=new,
        instance_id=instance_id,
    )
    _complete(run(to, request, timeout=timeout, output=output), shows_itself=True)


@session.command("list", epilog=EXIT_CODES)
@connected
def list_sessions(
    to: Connection,
    service: Annotated[str, typer.Option(help="Those of this name only.")] = "",
    instance_id: Instance = 0,
    output: Output = "table",
) -> None:
    """List the sessions of an instance that run or wait."""
    from app.client import sessions
    from app.proto.velda_pb2 import ListSessionsRequest

    request = ListSessionsRequest(instance_id=instance_id, service_name=service)
    _complete(sessions.list_sessions(to, request, output=output))


@session.command("kill", epilog=EXIT_CODES)
@connected
def kill_sessions(
    to: Connection,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]…", help="Of sessions.")] = None,
    service: Annotated[str, typer.Option(help="All sessions of this name, in place of ids.")] = "",
    force: Annotated[bool, typer.Option("--force", help="At once, without time to end in order.")] = False,
    instance_id: Instance = 0,
) -> None:
    """End sessions."""
    from app.client import sessions
    from app.proto.velda_pb2 import KillSessionRequest

    if bool(ids) == bool(service):
        raise typer.BadParameter("give ids of sessions, or --service NAME")
    named = [{"session_id": each} for each in ids or []] or [{"service_name": service}]
    _complete(sessions.kill(to, [KillSessionRequest(instance_id=instance_id, force=force, **each) for each in named]))


@pool.command("list", epilog=EXIT_CODES)
@connected
def list_pools(
    to: Connection,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Theirs; else all that you may see.")] = "",
    output: Output = "table",
) -> None:
    """List pools."""
    from app.client import pools

    _complete(pools.list_pools(to, namespace=namespace, output=output))


@pool.command("watch", epilog=EXIT_CODES)
@connected
def watch_pool(
    to: Connection,
    pool: Annotated[str, typer.Argument(help="NAME or NAMESPACE/NAME.")],
    output: Output = "table",
) -> None:
    """Print why a pool cannot allocate agents, at each change, until it is gone or Ctrl-C."""
    from app.client import pools

    _complete(pools.watch(to, pool, output=output), shows_itself=True)


def _tags(given: list[str]) -> dict[str, str]:
    pairs = [tag.partition("=") for tag in given]
    if bad := [key for key, equals, _ in pairs if not key or not equals]:
        raise typer.BadParameter(f"{bad[0]!r} is not KEY=VALUE", param_hint="--tag")
    return {key: value for key, _, value in pairs}


def _complete(work: Coroutine[Any, Any, None], *, shows_itself: bool = False) -> None:
    """Run it; what goes wrong is one line on standard error and an exit code.

    One that takes long is seen to wait, unless it says so itself.
    """
    import asyncio
    import contextlib

    from app.obs.progress import SOON, waiting

    try:
        with contextlib.nullcontext() if shows_itself else waiting("waiting for the server", after=SOON):
            asyncio.run(work)
    except ClientError as error:
        typer.echo(f"velda-apiserver: {error}", err=True)
        raise typer.Exit(error.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
