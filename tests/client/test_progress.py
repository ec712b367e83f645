"""Whoever waits for more than two seconds is told what for."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
import yaml

from app.obs import progress
from app.obs.progress import progressing, waiting
from tests.support.process import bound
from tests.support.running import CHECKOUT

QUICK = ("pool list", "session list", "session kill a", "explain cpu")


@pytest.mark.parametrize("command", QUICK)
async def test_a_server_that_does_not_answer(command: str, tmp_path: Path) -> None:
    asked = asyncio.Event()
    silent: list[asyncio.StreamWriter] = []

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)
        asked.set()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    (token := tmp_path / "token").write_text("t")
    process = await asyncio.create_subprocess_exec(
        *bound(sys.executable, "-m", "app", *command.split()),
        cwd=CHECKOUT,
        env={**os.environ, "KUBECONFIG": str(kubeconfig(tmp_path, url)), "VELDA_SERVER": url, "NO_COLOR": "1"}
        | {"VELDA_TOKEN_FILE": str(token)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    line = await asyncio.wait_for(process.stderr.readline(), 60)
    assert line.decode().startswith("waiting for the ")
    assert asked.is_set()
    server.close()
    process.terminate()
    for writer in silent:
        writer.close()
    await asyncio.wait_for(process.communicate(), 60)


def kubeconfig(directory: Path, url: str) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    (path := directory / "kubeconfig").write_text(yaml.safe_dump(document))
    return path


def test_what_is_over_at_once_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("waiting", after=60) as shown:
        assert shown.reason == ""
    assert list(progressing([1, 2], "Counting")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_reasons_are_lines_and_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("waiting for \x1b[2J", after=60) as shown:
        shown.say("no room\x07")
        shown.say("no room\x07")
        shown.say("")
    assert capsys.readouterr().err.splitlines() == [
        "still waiting for ?[2J: no room?",
        "still waiting for ?[2J: it has room again",
    ]


def test_how_many_are_done(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SOON", 0.0)
    monkeypatch.setattr(progress, "REPEAT", 0.0)
    assert list(progressing("ab", "Counting")) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["Counting: 0 of 2 done", "Counting: 1 of 2 done"]


def test_a_terminal_gets_a_bar_and_is_left_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "SOON", 0.0)
    assert list(progressing("ab", "Counting")) == ["a", "b"]
    with waiting("waiting") as shown:
        shown.say("no room")
    said = capsys.readouterr().err
    assert "Counting" in said
    assert said.rstrip("\n").endswith(("\x1b[2K", "\x1b[?25h")), "the last lines are erased and the cursor is back"
