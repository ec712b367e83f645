"""Every command of the documentation runs, as it stands there: on the fleet stage, or in a test that is named here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.chart.release import Release
from tests.docs.blocks import Block, alike, blocks, commands, languages, pages
from tests.docs.place import Place
from tests.support.cluster import Fleet
from tests.support.running import CHECKOUT

LONGEST = 600
"""Seconds that a page may take: several upgrades, on a machine that does much else."""
PAGES = pages()
BLOCKS = {name: found for name, text in PAGES.items() if (found := blocks(text))}
"""Pages that have commands."""
INSTALLS = "index.md"
"""The page that begins with nothing installed."""
WITH_RELEASE = (
    "security.md",
    "migration.md",
    "protocol.md",
    "dashboard.md",
    "operations.md",
    "alerts.md",
    "metrics.md",
    "troubleshooting.md",
    "kubectl.md",
    "logs.md",
)
"""Pages that begin with the release velda, the documentation's ConfigMap and its pool shell, and end with all of it."""
ELSEWHERE: dict[str, str] = {
    "install.md": "tests/deploy/test_systemd.py::test_it_is_up_once_systemctl_start_returns_and_makes_the_pools_pods",
    "check.md": "tests/check/test_documentation.py::test_every_command_of_the_page",
    "gitops.md": "tests/gitops/test_examples.py::test_the_documented_copy_adds_one_key_to_argo_cds_config_map",
    "README.md": "tests/docs/test_commands.py::test_the_readme_has_commands_of_other_pages_alone",
}
"""Pages whose commands another test runs, FILE::NAME."""
UNRUN: dict[str, str] = {
    "uv tool install": "it would change the machine; tests/client/test_kubectl.py runs what it installs",
    "make demo": "it is a story of its own, on a stage of its own",
    "make test": "it is what runs this",
    "velda-apiserver pool watch": "it goes on until Ctrl-C; tests/client/test_documentation.py runs it",
    "helm upgrade --install velda chart/ --namespace velda --create-namespace --set serviceMonitor": "the Prometheus "
    "operator's kinds are not there; tests/e2e/test_metrics.py scrapes as they say",
    "kubectl port-forward": "it goes on until Ctrl-C; what is beyond is in tests/dashboard/test_kubernetes.py",
    "kubectl cp": "pods of the server are processes on this stage, and no kubelet runs a command in them",
    "velda-apiserver replay": "what kubectl cp would have brought; tests/test_replay_command.py runs it",
}
"""Commands that cannot run here, by what they begin with, and why."""


@pytest.fixture
def place(fleet: Fleet, tmp_path: Path) -> Place:
    return Place(fleet, tmp_path)


@pytest.fixture(scope="module")
def cleared(fleet: Fleet) -> Iterator[Release]:
    """Whatever pages leave is removed."""
    release = Release(fleet)
    yield release
    release.clean()
    fleet.kubectl("delete", "configmap", "velda-config", "--namespace=default", "--ignore-not-found")
    fleet.kubectl("delete", "clusterrole,clusterrolebinding", "velda-metrics", "dashboard", "--ignore-not-found")


@pytest.fixture(scope="module")
def installed(cleared: Release) -> None:
    cleared.clean()
    cleared.install()


@pytest.mark.e2e
@pytest.mark.timeout(LONGEST)
def test_the_commands_of_the_quickstart(cleared: Release, place: Place) -> None:
    cleared.clean()
    _run(place, INSTALLS)


@pytest.mark.e2e
@pytest.mark.timeout(LONGEST)
@pytest.mark.parametrize("page", WITH_RELEASE)
def test_the_commands_of_a_page_about_a_release(installed: None, place: Place, page: str) -> None:
    place.run("kubectl apply -f examples/velda-config.yaml -f examples/shell.yaml")
    place.run("kubectl wait agentpool/shell --for=condition=CapacityReady --timeout=60s")
    _run(place, page)


def test_the_readme_has_commands_of_other_pages_alone() -> None:
    run = {
        _words(command) for page in (INSTALLS, *WITH_RELEASE) for block in BLOCKS[page] for command in commands(block)
    }
    readme = [command for block in BLOCKS["README.md"] for command in commands(block)]
    assert [command for command in readme if not _obstacle(command) and _words(command) not in run] == []


def _words(command: str) -> tuple[str, ...]:
    return tuple(shlex.split(command, comments=True))


def _run(place: Place, page: str) -> None:
    for block in BLOCKS.get(page, ()):
        printed = place.run("\n".join(command for command in commands(block) if not _obstacle(command)))
        lacking = alike(block.output) - alike(printed)
        assert not lacking, f"{page}:{block.line}: the page shows {lacking}, the commands printed\n{printed}"


def _obstacle(command: str) -> str:
    return next((why for start, why in UNRUN.items() if command.startswith(start)), "")


def test_each_page_with_commands_is_run_somewhere() -> None:
    assert BLOCKS.keys() <= {INSTALLS, *WITH_RELEASE, *ELSEWHERE}


def test_no_block_is_unmarked_so_that_commands_cannot_hide() -> None:
    assert [name for name, text in PAGES.items() if "" in languages(text)] == []


def test_what_is_not_run_is_there_and_not_more() -> None:
    found = [command for page in BLOCKS.values() for block in page for command in commands(block)]
    assert [start for start in UNRUN if not any(command.startswith(start) for command in found)] == []


@pytest.mark.parametrize("named", sorted(set(ELSEWHERE.values())))
def test_the_test_that_runs_a_page_exists(named: str) -> None:
    file, _, name = named.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (CHECKOUT / file).read_text(encoding="utf-8"), re.MULTILINE)


TEXT = """\
```bash
# words
a \\
  b
```

```text
NAME  AGE
x  1m2s
```

1. A

   ```bash
   c
   ```

No output of that:

```text
d
```
"""


def test_blocks_commands_and_output() -> None:
    first, second = blocks(TEXT)
    assert (first.line, commands(first), alike(first.output)) == (1, ["a b"], {"NAME AGE", "x 0"})
    assert second == Block(14, "c", "")


class _Printer:
    """A place where every command prints the same."""

    def run(self, script: str) -> str:
        return "NAME  AGE\nx     7s\n"


def test_output_that_is_not_what_the_page_shows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    place = cast(Place, _Printer())
    monkeypatch.setitem(BLOCKS, "a.md", [Block(1, "a", "x 12m")])
    _run(place, "a.md")
    monkeypatch.setitem(BLOCKS, "a.md", [Block(3, "a", "y 12m")])
    with pytest.raises(AssertionError, match=r"a\.md:3: the page shows"):
        _run(place, "a.md")
