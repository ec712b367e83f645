"""docs/install.md: no command that no test runs, and messages as they are."""

from __future__ import annotations

import pytest

from app.settings import SettingsError, parse
from tests.deploy.documented import all_documented, documented
from tests.docs.blocks import pages

TESTED = ("Image", "Docker and Compose", "systemd")
"""Sections whose commands tests of this package run or, where they need Docker's engine, take apart."""


def test_every_command_is_in_a_section_that_tests_run() -> None:
    assert all_documented() == [command for section in TESTED for block in documented(section) for command in block]


def test_the_message_about_several_clusters_is_the_one_that_is_shown() -> None:
    cluster = "  - kubernetes:\n      namespace: a\n      gke: {{project: p, location: l, cluster_name: {}}}\n"
    with pytest.raises(SettingsError) as raised:
        parse("# two clusters\nprovisioners:\n" + cluster.format("one") + cluster.format("two"), "velda-config.yaml")
    assert f"```text\n{raised.value}\n```" in pages()["install.md"]
