"""Names and quantities as Kubernetes and registries write them."""

from __future__ import annotations

import pytest

from app.core.syntax import is_dns_name, is_image, is_label_value, is_quantity


@pytest.mark.parametrize("text", ["", "a", "A1", "a-b_c.d", "x" * 63])
def test_label_values(text: str) -> None:
    assert is_label_value(text)


@pytest.mark.parametrize("text", ["-a", "a-", "a b", "a/b", "x" * 64, "a\n", "é"])
def test_no_label_values(text: str) -> None:
    assert not is_label_value(text)


def test_dns_names() -> None:
    assert all(map(is_dns_name, ["velda.io", "a", "a-b.c1"]))
    assert not any(map(is_dns_name, ["", "A", "a..b", "-a", "a_b", "x" * 254]))


@pytest.mark.parametrize("value", ["4", "0.1", "500m", "0.25Gi", "1e3", "1E", "-1", "+1", ".5", "5.", "12k", 4, 0.5])
def test_quantities(value: str | float) -> None:
    assert is_quantity(value)


@pytest.mark.parametrize("value", ["", "4x", "1 Gi", "Gi", "1gb", "1.2.3", "1e", "1K", "1\n", "one"])
def test_no_quantities(value: str) -> None:
    assert not is_quantity(value)


@pytest.mark.parametrize(
    "text",
    [
        "agent",
        "veldaio/agent:latest",
        "velda/agent",
        "localhost:5000/a/b__c/d.e-f:v1.2_3",
        "Registry.example.com/a",
        "Registry:5000/a",
        "localhost/a",
        "a.b/c",
        "[::1]:5000/a",
        "gcr.io/a@sha256:" + "0" * 64,
        "gcr.io/a:tag@sha256:" + "a" * 64,
    ],
)
def test_images(text: str) -> None:
    assert is_image(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " agent",
        "agent ",
        "a b",
        "Agent",
        "a/Agent",
        "UPPER/case:tag",
        "a:b:c",
        "a:",
        "a@sha256:00",
        "a//b",
        "/a",
        "a/",
        "https://a/b",
        "a:é",
    ],
)
def test_no_images(text: str) -> None:
    assert not is_image(text)
