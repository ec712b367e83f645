"""What to write into the Secret next: pure, from its content, what a replica sees around it, and the time.

A CA is replaced in phases that the Secret's content itself is: nothing else has to be kept, so that another replica, or
the next process, goes on from wherever the last one stopped.

1. PUBLISHING: the bundle begins with the new CA; the leaf is still the old one's. Ends when every webhook has shown the
   bundle for ``overlap`` seconds.
2. SWITCHING: the leaf is of the new CA; the bundle carries both. Ends when every live replica serves that leaf.
3. STEADY: the new CA alone.

What cannot be used is mended by whoever sees it; all else is the leader's, and others' only when it is overdue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Literal

from certs.authority import KeyPair, issue_authority, issue_leaf
from certs.material import (
    Material,
    age,
    authority_fault,
    blocks,
    fault,
    good_authorities,
    issued_by,
    join,
    names_of,
)

RENEW = 2 / 3
"""Of a certificate's life: a third is left for whatever keeps us from renewing it."""
OVERDUE = 5 / 6
"""When those renew that do not lead: there seems to be no leader."""

Request = Literal["", "leaf", "ca"]
REQUESTS: tuple[Request, ...] = ("leaf", "ca")


class Phase(IntEnum):
    STEADY = 0
    PUBLISHING = 1
    SWITCHING = 2


@dataclass(frozen=True)
class View:
    """What a replica sees around the Secret.

    ``published`` is the caBundle of every webhook, ``published_for`` for how many seconds all have been seen as the
    Secret says (None: they are not); ``confirmed``: every live replica serves the Secret's leaf; ``requested``: what a
    user wants anew.
    """

    published: Sequence[bytes] = ()
    published_for: float | None = None
    confirmed: bool = False
    leading: bool = False
    requested: Request = ""


@dataclass(frozen=True)
class Step:
    """``done`` are the requests that it fulfils, ``reason`` is for people, ``fault``: something could not be used."""

    material: Material
    reason: str
    done: frozenset[Request] = frozenset()
    fault: bool = False


def phase(material: Material) -> Phase:
    """Of usable material."""
    if not issued_by(material.leaf.certificate, material.authority.certificate):
        return Phase.PUBLISHING
    return Phase.SWITCHING if len(blocks(material.bundle)) > 1 else Phase.STEADY


def next_step(
    material: Material | None, view: View, *, names: Sequence[str], overlap: float, now: datetime
) -> Step | None:
    """What to write; None while there is nothing to do, or something to wait for. ``material`` None: there is none."""
    if material is None:
        return _anew(b"".join(view.published), names=names, now=now)
    return _mended(material, view, names=names, now=now) or _advanced(
        material, view, names=names, overlap=overlap, now=now
    )


def issue(
    old: Material | None, what: Literal["leaf", "everything"], *, names: Sequence[str], now: datetime
) -> Material:
    """New material; the CA of ``old`` is kept where only the leaf is wanted."""
    if old and what == "leaf":
        return Material(issue_leaf(old.authority, names=names, now=now), old.bundle, old.authority)
    authority = issue_authority(now=now)
    return Material(issue_leaf(authority, names=names, now=now), authority.certificate, authority)


def _anew(published: bytes, *, names: Sequence[str], now: datetime) -> Step:
    """The CAs that clients trust now stay until every replica has left them: some may serve what was lost."""
    fresh = issue(None, "everything", names=names, now=now)
    bundle = join([fresh.bundle, *good_authorities(published, now=now)])
    return Step(Material(fresh.leaf, bundle, fresh.authority), "there is none yet", frozenset(REQUESTS))


def _mended(material: Material, view: View, *, names: Sequence[str], now: datetime) -> Step | None:
    """The repair of what cannot be used."""
    if problem := authority_fault(material.authority, now=now):
        trusted = good_authorities(material.bundle, now=now)
        if not trusted or _leaf_fault(material.leaf, trusted, now=now):
            step = _anew(b"".join([material.bundle, *view.published]), names=names, now=now)
            return Step(step.material, f"ca.crt, ca.key: {problem}", step.done, fault=True)
        return Step(_begun(material, trusted, now=now), f"ca.crt, ca.key: {problem}", frozenset({"ca"}), fault=True)
    trusted = blocks(material.bundle)
    if problem := _leaf_fault(material.leaf, trusted, now=now):
        renewed = issue(material, "leaf", names=names, now=now)
        return Step(renewed, f"tls.crt, tls.key: {problem}", frozenset({"leaf"}), fault=True)
    carried = names_of(material.leaf.certificate)
    missing = [name for name in names if name not in carried]
    if missing and phase(material) is not Phase.PUBLISHING:
        # Those that it carries stay: while versions of us change, some replicas are called by them.
        renewed = issue(material, "leaf", names=[*names, *sorted(carried.difference(names))], now=now)
        return Step(renewed, f"it lacks the names {', '.join(missing)}", frozenset({"leaf"}))
    return None


def _advanced(material: Material, view: View, *, names: Sequence[str], overlap: float, now: datetime) -> Step | None:
    """The next phase of a change of CA, or what is due by its age or by request."""
    current = phase(material)
    if view.leading and current is Phase.PUBLISHING:
        if view.published_for is None or view.published_for < overlap:
            return None
        return Step(issue(material, "leaf", names=names, now=now), "the new CA is published", frozenset({"leaf"}))
    if view.leading and current is Phase.SWITCHING and view.confirmed:
        kept = Material(material.leaf, material.authority.certificate, material.authority)
        return Step(kept, "every replica has left the old CA")
    reason = _due(material.authority, view, "ca", now=now)
    if reason and current is Phase.STEADY:
        return Step(_begun(material, blocks(material.bundle), now=now), f"ca.crt: {reason}", frozenset({"ca"}))
    reason = _due(material.leaf, view, "leaf", now=now)
    if reason and current is not Phase.PUBLISHING:
        return Step(issue(material, "leaf", names=names, now=now), f"tls.crt: {reason}", frozenset({"leaf"}))
    return None


def _begun(material: Material, trusted: Sequence[bytes], *, now: datetime) -> Material:
    """A new CA before those of ``trusted``; the one that the leaf needs is the last to be left out of a full bundle."""
    authority = issue_authority(now=now)
    needed = [old for old in trusted if issued_by(material.leaf.certificate, old)]
    return Material(material.leaf, join([authority.certificate, *needed, *trusted]), authority)


def _due(pair: KeyPair, view: View, what: Request, *, now: datetime) -> str:
    """Why it is to be replaced; empty while it is not."""
    if view.leading and view.requested == what:
        return "requested"
    share = age(pair.certificate, now=now)
    return f"{share:.0%} of its life are over" if share >= (RENEW if view.leading else OVERDUE) else ""


def _leaf_fault(leaf: KeyPair, trusted: Sequence[bytes], *, now: datetime) -> str | None:
    if problem := fault(leaf, now=now):
        return problem
    if not any(issued_by(leaf.certificate, authority) for authority in trusted):
        return "no CA in ca.crt signed it"
    return None
