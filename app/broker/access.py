"""What a client may do. Clients are the cluster's own users, and what they may do is what RBAC says of agentpools."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from app.model.meta import NamespacedName

Verb = Literal["get", "list", "watch", "create", "delete"]


class Caller(msgspec.Struct, frozen=True):
    """A client as the API server knows it: a UserInfo. Without a username it is one that nobody asked for its name."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


ANYONE = Caller()


class Credentials(msgspec.Struct, frozen=True):
    """What was shown by who calls: a bearer token, or the certificate (DER) of the TLS connection; or neither.

    A certificate is here only where TLS has verified it: of a client by the cluster's CA, of an agent by ours.
    """

    token: str = ""
    certificate: bytes = b""

    def __repr__(self) -> str:
        return "Credentials(…)"


class Right(msgspec.Struct, frozen=True):
    """A verb on agentpools, or on their subresource ``session``; of one pool, of a namespace, or ("") of all."""

    verb: Verb
    namespace: str
    name: str = ""
    subresource: Literal["", "session"] = ""

    def of(self, pool: NamespacedName) -> Right:
        """The same of one pool."""
        return msgspec.structs.replace(self, namespace=pool.namespace, name=pool.name)

    def __str__(self) -> str:
        resource = f"agentpools/{self.subresource}" if self.subresource else "agentpools"
        name = f' "{self.name}"' if self.name else ""
        where = f'in the namespace "{self.namespace}"' if self.namespace else "in all namespaces"
        return f"{self.verb} {resource}.velda.io{name} {where}"


class Access(Protocol):
    """Who a client is, and whether it has a right. Both raise RefusedError (UNAVAILABLE) if that is not known now."""

    async def identify(self, credentials: Credentials) -> Caller:
        """Raises RefusedError (UNAUTHENTICATED) for credentials that prove nothing."""
        ...

    async def allows(self, caller: Caller, right: Right) -> bool: ...


class Open:
    """Everyone may do everything: for tests, and for a broker that only friends can reach."""

    async def identify(self, credentials: Credentials) -> Caller:
        return ANYONE

    async def allows(self, caller: Caller, right: Right) -> bool:
        return True


def bearer(authorization: str) -> str:
    """The token of an Authorization header; empty if it has none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
