"""Lines of the log: what each has, what none has, and levels that change meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.obs.levels import follow, reload
from app.obs.logging import configure, redacted
from app.settings import Log, load

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
BASIC = "provisioners: [{kubernetes: {namespace: a}}]\n"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = handlers, level
    for name in ("tests.obs", "tests.obs.test_logging", "other"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_each_line_is_an_object_with_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Log(format="json"))
    with structlog.contextvars.bound_contextvars(pool="team/cpu", namespace="team", reconcile_id="ab12"):
        structlog.get_logger().info("pods created", count=3)
        logging.getLogger("other").warning("by a library")
    ours, theirs = lines(capsys)
    context = {"pool": "team/cpu", "namespace": "team", "reconcile_id": "ab12"}
    assert context.items() <= ours.items()
    assert context.items() <= theirs.items()
    assert (ours["event"], ours["level"], ours["count"]) == ("pods created", "info", 3)
    assert (ours["logger"], theirs["logger"]) == ("tests.obs.test_logging", "other")
    assert ours["timestamp"].endswith("Z")


def test_levels_of_loggers_and_of_those_below_them(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Log(format="json", level="warning", levels={"tests.obs": "debug", "other": "error"}))
    structlog.get_logger().debug("ours")
    logging.getLogger("third").info("not shown")
    logging.getLogger("other").warning("not shown")
    logging.getLogger("third").warning("theirs")
    assert [line["event"] for line in lines(capsys)] == ["ours", "theirs"]


def _fail(secret: str) -> None:
    kept = f"a variable with {secret}"
    raise ValueError(f"refused: Authorization: Bearer {kept.rpartition(' ')[2]}")


@pytest.mark.parametrize("style", ["json", "console"])
def test_no_secret_gets_into_a_line(capsys: pytest.CaptureFixture[str], style: Any) -> None:
    configure(Log(format=style))
    log = structlog.get_logger()
    key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIB\n-----END EC PRIVATE KEY-----"
    try:
        _fail(TOKEN)
    except ValueError:
        log.exception("failed", headers={"Authorization": f"Bearer {TOKEN}"}, key=key)
        logging.getLogger("other").exception("failed with %s", TOKEN)
    log.warning("opaque", header="bearer c2VjcmV0LXRva2VuLXRoYXQtaXMtbG9uZw")
    said = capsys.readouterr().err
    assert said.count("[redacted]") >= 5
    for secret in (TOKEN, TOKEN[:30], "MHcCAQEEIB", "c2VjcmV0", "a variable with"):
        assert secret not in said


def test_words_about_tokens_stay() -> None:
    text = "it must hold one bearer token; eyJ is how they begin; -----BEGIN CERTIFICATE-----"
    assert redacted(text) == text


def test_a_reload_applies_levels_and_names_what_a_restart_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "velda-config.yaml").write_text(BASIC + "log: {format: json}\n")
    settings = load(file)
    configure(settings.log)
    file.write_text(BASIC + "log: {format: json, level: error, levels: {tests: debug}}\nbroker: {port: 50052}\n")
    held = reload(file, settings)
    structlog.get_logger().debug("shown")
    logging.getLogger("other").warning("not shown")
    file.write_text(BASIC + "log: {level: loud}\n")
    assert reload(file, held) is held
    file.write_text(BASIC)
    reload(file, held)
    structlog.get_logger().debug("not shown")
    mine = [line["event"] for line in lines(capsys) if line["logger"] == __name__]
    assert mine == ["shown"]


def test_what_a_reload_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file := tmp_path / "velda-config.yaml").write_text(BASIC + "log: {format: json}\n")
    settings = load(file)
    configure(settings.log)
    file.write_text(BASIC + "log: {format: json, level: debug}\nbroker: {port: 50052}\n")
    held = reload(file, settings)
    file.write_text("log: {}\n")
    reload(file, held)
    changed, restart, refused = lines(capsys)
    assert (changed["event"], changed["levels"], changed["to"]) == ("log levels changed", {}, "debug")
    assert (restart["level"], restart["keys"]) == ("warning", ["broker"])
    assert "provisioners" in refused["error"]


async def test_the_file_is_followed_and_sighup_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "velda-config.yaml").write_text(BASIC)
    settings = load(file)
    configure(settings.log)
    monkeypatch.setattr("app.obs.levels.POLL", 0.01)
    levels: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr("app.obs.levels.set_levels", lambda log: levels.put_nowait(log.level))
    following = asyncio.create_task(follow(file, settings))
    await asyncio.sleep(0)
    # As a kubelet does it: another file takes the name.
    (other := tmp_path / "new").write_text(BASIC + "log: {level: debug}\n")
    os.replace(other, file)
    assert await asyncio.wait_for(levels.get(), 30) == "debug"
    monkeypatch.setattr("app.obs.levels.POLL", 3600.0)
    (other := tmp_path / "new").write_text(BASIC + "log: {level: error}\n")
    os.replace(other, file)
    os.kill(os.getpid(), signal.SIGHUP)
    assert await asyncio.wait_for(levels.get(), 30) == "error"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
