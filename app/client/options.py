"""The options by which a command reaches the server; every command of the client has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Format = Literal["table", "wide", "json", "name"]


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the server is, and as whom it is asked."""

    server: Annotated[
        str,
        typer.Option(envvar="VELDA_SERVER", help="https://HOST[:PORT]; else a port-forward through the cluster."),
    ] = ""
    ca: Annotated[
        Path | None,
        typer.Option(
            envvar="VELDA_CA",
            help="CA of the server's certificate; else the system's for --server, or the one that it publishes.",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="VELDA_TOKEN_FILE", help="Holds a bearer token, in place of the kubeconfig's credentials."),
    ] = None
    kubeconfig: Annotated[Path | None, typer.Option(help="As kubectl has it; else KUBECONFIG, or ~/.kube/config.")] = (
        None
    )
    context: Annotated[str, typer.Option(help="The kubeconfig's context; else the current one.")] = ""
    release_namespace: Annotated[
        str, typer.Option(envvar="VELDA_RELEASE_NAMESPACE", help="Where the Service velda-apiserver is.")
    ] = "velda"


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command these options; it gets them as its first argument, a Connection."""
    names = [field.name for field in fields(Connection)]

    def run(**given: Any) -> None:
        command(Connection(**{name: given.pop(name) for name in names}), **given)

    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*own, *inspect.signature(Connection, eval_str=True).parameters.values()]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    run.__doc__ = command.__doc__
    return run
