"""How Kubernetes and container registries write names and quantities."""

from __future__ import annotations

import re

LABEL_LENGTH = 63
PREFIX_LENGTH = 253
IMAGE_LENGTH = 255 + 1 + 128 + 1 + 255
QUANTITY_LENGTH = 256
"""More than any that is meant: a quantity is below 2**63 and has 9 decimals."""

LABEL_SYNTAX = f"at most {LABEL_LENGTH} letters, digits, '-', '_' or '.', with a letter or digit at both ends"

_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUANTITY = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")

_HOST_PART = r"[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?"
_HOST = rf"(?:localhost|{_HOST_PART}(?:\.{_HOST_PART})+|(?:{_HOST_PART}|\[[a-fA-F0-9:]+\])(?=:))(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_IMAGE = re.compile(rf"(?:{_HOST}/)?{_PATH_PART}(?:/{_PATH_PART})*(?::\w[\w.-]{{0,127}})?(?:@{_DIGEST})?", re.ASCII)


def is_label_value(text: str) -> bool:
    """Source: the API documentation of labels. An empty value is one."""
    return not text or (len(text) <= LABEL_LENGTH and _LABEL.fullmatch(text) is not None)


def is_dns_name(text: str) -> bool:
    """A DNS subdomain (RFC 1123): what may stand before the '/' of a label's name."""
    return len(text) <= PREFIX_LENGTH and _PREFIX.fullmatch(text) is not None


def is_quantity(value: str | float) -> bool:
    """Source: the API documentation of Quantity. Plain numbers are quantities."""
    return not isinstance(value, str) or (len(value) <= QUANTITY_LENGTH and _QUANTITY.fullmatch(value) is not None)


def is_image(text: str) -> bool:
    """Whether a kubelet can read it as an image's name (source: the grammar of distribution/reference).

    What stands before the first '/' is a registry only with a dot or a port, or as localhost; the grammar would take
    capital letters for one as well, which are a mistake here.
    """
    return len(text) <= IMAGE_LENGTH and _IMAGE.fullmatch(text) is not None
