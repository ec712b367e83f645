"""Usage, and what is wrong before any server is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from app.__main__ import cli
from app.client.output import print_table, printable
from tests.client.serving import other_authority
from tests.support.cluster import Cluster

SERVER = "--server=https://127.0.0.1:1"


def run(*args: str, **environment: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, args, env={"NO_COLOR": "1", "COLUMNS": "300", "TERM": "dumb", **environment})
    assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize("command", ["session run", "session list", "session kill", "pool list", "pool watch"])
def test_help_says_how_commands_end_and_how_they_reach_the_server(command: str) -> None:
    code, said = run(*command.split(), "--help")
    assert code == 0
    for word in ("Exit codes: 0 done; 1 refused", "130 interrupted", "--server", "VELDA_CA", "--context"):
        assert word in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("session", "run"), "Missing argument"),
        (("session", "run", "cpu", "--tag=owner"), "'owner' is not KEY=VALUE"),
        (("session", "run", "cpu", "--priority=9223372036854775808"), "--priority"),
        (("session", "run", "cpu", "--timeout=0"), "--timeout"),
        (("session", "kill"), "give ids of sessions, or --service NAME"),
        (("session", "kill", "s", "--service=web"), "give ids of sessions, or --service NAME"),
        (("session", "list", "-o", "yaml"), "yaml"),
        (("pool", "list", "--server=http://127.0.0.1"), "--server must be https://HOST[:PORT]"),
        (("pool", "list", "--server=https://user:word@host"), "--server must be https://HOST[:PORT]"),
        (("pool", "list", SERVER, "--token-file=/none/such"), "--token-file /none/such: cannot be read"),
        (("pool", "list", SERVER, "--token-file=/dev/null"), "--token-file /dev/null: it must hold one bearer token"),
        (("pool", "list", SERVER, "--ca=/dev/null"), "--ca /dev/null: no CA"),
    ],
)
def test_wrong_usage(args: tuple[str, ...], words: str) -> None:
    code, said = run(*args)
    assert (code, words in said) == (2, True), said
    assert "word@" not in said


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """A context without credentials, and one with a token."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bare",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "bare", "user": {}}, {"name": "other", "user": {"token": "t"}}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": name}} for name in ("bare", "other")],
    }
    (path := tmp_path / "kubeconfig").write_text(yaml.safe_dump(document))
    return path


def test_who_has_no_credentials_is_told_how_to_get_them(kubeconfig: Path) -> None:
    code, said = run("pool", "list", SERVER, f"--kubeconfig={kubeconfig}")
    assert code == 3
    for words in ("neither a token nor a client certificate", "kubectl create token NAME > FILE", "--token-file FILE"):
        assert words in said


def test_the_context_is_chosen_as_kubectl_does(kubeconfig: Path) -> None:
    assert run("pool", "list", SERVER, "--context=other", KUBECONFIG=str(kubeconfig))[0] == 4
    code, said = run("pool", "list", SERVER, "--context=none", KUBECONFIG=str(kubeconfig))
    assert (code, f"the context none of {kubeconfig} cannot be used" in said) == (3, True)


def test_a_cluster_without_the_server(cluster: Cluster) -> None:
    empty = cluster.namespace()
    code, said = run("pool", "list", f"--release-namespace={empty}", f"--kubeconfig={cluster.kubeconfig}")
    assert code == 1
    for words in (f"ConfigMap {empty}/velda-apiserver-ca", "--release-namespace", "--server and --ca"):
        assert words in said


def test_a_release_without_its_service(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = other_authority(cluster, tmp_path / "ca.crt")
    args = ("pool", "list", "--release-namespace=default", f"--kubeconfig={cluster.kubeconfig}", f"--ca={path}")
    code, said = run(*args)
    assert code == 1
    for words in ("Service default/velda-apiserver", "not found", "--release-namespace or --server"):
        assert words in said
    monkeypatch.setenv("PATH", "/none")
    code, said = run(*args)
    assert (code, "install it, or give --server" in said) == (4, True)


def test_what_a_server_says_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\x1b[2J\nb\x9b") == "a [2J b "
    print_table(("NAME", "TEXT"), [("[red]x", "\x1b]0;title\x07"), ("y" * 300, "")])
    out = capsys.readouterr().out
    assert "[red]x" in out
    assert "y" * 300 in out
    assert "\x1b" not in out
