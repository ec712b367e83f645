"""What is due: pure, from the Secret's content and the time. What cannot be used is due at once, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.authority import LEAF_LIFE, KeyPair, issue_authority, issue_leaf


@dataclass(frozen=True)
class Material:
    """All that the Secret holds: what we serve with, what clients verify it by (``bundle``), and the CA that signs."""

    leaf: KeyPair
    bundle: bytes
    authority: KeyPair


@dataclass(frozen=True)
class Due:
    """``reason`` is for people; ``fault`` tells an unusable certificate from a renewal in time."""

    what: Literal["nothing", "leaf", "everything"]
    reason: str = ""
    fault: bool = False


NOTHING = Due("nothing")
DER = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def due(material: Material, *, names: Sequence[str], now: datetime) -> Due:
    """What to issue anew so that ``names`` can be served."""
    if problem := _authority_fault(material, now=now):
        return Due("everything", problem, fault=True)
    authority = x509.load_pem_x509_certificate(material.authority.certificate)
    if authority.not_valid_after_utc < now + LEAF_LIFE:
        return Due("everything", "the CA would not outlive a new certificate")
    if problem := fault(material.leaf, now=now):
        return Due("leaf", f"tls.crt, tls.key: {problem}", fault=True)
    leaf = x509.load_pem_x509_certificate(material.leaf.certificate)
    if not _issued_by(leaf, authority):
        return Due("leaf", "tls.crt: the CA in ca.crt did not sign it", fault=True)
    if _names(leaf) != set(names):
        return Due("leaf", f"the names to serve are now {', '.join(names)}")
    if now >= renewal_time(leaf):
        return Due("leaf", "two thirds of its life are over")
    return NOTHING


def issue(
    old: Material | None, what: Literal["leaf", "everything"], *, names: Sequence[str], now: datetime
) -> Material:
    """New material as ``due`` asked for; the CA of ``old`` is kept where only the leaf is due."""
    if old and what == "leaf":
        return Material(issue_leaf(old.authority, names=names, now=now), old.bundle, old.authority)
    authority = issue_authority(now=now)
    return Material(issue_leaf(authority, names=names, now=now), authority.certificate, authority)


def fault(pair: KeyPair, *, now: datetime) -> str | None:
    """Why the pair cannot be used at ``now``; None when it can."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
    except ValueError:
        return "not a PEM certificate"
    try:
        key = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        return "not an unencrypted PEM private key"
    if certificate.public_key().public_bytes(*DER) != key.public_key().public_bytes(*DER):
        return "the key does not belong to the certificate"
    if now < certificate.not_valid_before_utc:
        return f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    if now >= certificate.not_valid_after_utc:
        return f"expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    return None


def renewal_time(certificate: x509.Certificate) -> datetime:
    """Two thirds into its life: a third is left for whatever keeps us from renewing it."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life * 2 / 3


def _authority_fault(material: Material, *, now: datetime) -> str | None:
    problem = fault(material.authority, now=now)
    if not problem and not _may_sign(x509.load_pem_x509_certificate(material.authority.certificate)):
        problem = "not a CA of ours"
    return f"ca.crt, ca.key: {problem}" if problem else None


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return basic.ca and isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def _issued_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
