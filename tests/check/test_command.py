"""The command: which files it reads, what it prints, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator
from typer.testing import CliRunner, Result

from app.__main__ import cli
from app.check.report import RULES
from app.obs import progress
from tests.check.test_manifest import POOL
from tests.support.running import CHECKOUT

BAD = POOL.replace("maxIdle: 2", "maxIdle: 0")
ODD = POOL.replace("{privileged: true}", "{}")
SARIF = json.loads((Path(__file__).parent / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))
"""The official schema, without its descriptions (source: npm's @microsoft/jest-sarif 1.0.0-beta.0, MIT)."""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path = path.with_name(f"{path.name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def run(*args: str, stdin: str = "") -> Result:
    done = CliRunner().invoke(cli, ["check", *args], input=stdin, env={"NO_COLOR": "1"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_a_line_for_each_problem_and_a_summary(files: Path) -> None:
    write(files, good=POOL, bad=BAD, odd=ODD)
    done = run("bad.yaml", "odd.yaml", "good.yaml", "good.yaml")
    first, second = done.stdout.splitlines()
    assert (
        first == "bad.yaml:9:14: error: spec.autoscaler.maxIdle: Invalid value: 0: must be at least minIdle, which "
        "is 1 (cpu)"
    )
    assert second.startswith("odd.yaml:19:11: warning: spec.template.spec.containers[0].securityContext.privileged: ")
    assert done.stderr == "velda-apiserver check: 3 AgentPools in 3 files: 1 error, 1 warning\n"
    assert done.exit_code == 1
    assert run("odd.yaml").exit_code == run("good.yaml").exit_code == 0


def test_standard_input(files: Path) -> None:
    done = run("-", stdin=f"{POOL}---\n{BAD}")
    assert (done.exit_code, done.stdout.startswith("stdin:29:14: error: ")) == (1, True)


def test_what_cannot_be_read_is_no_pass(files: Path) -> None:
    write(files, good=POOL, bad=BAD)
    (files / "latin.yaml").write_bytes(b"kind: AgentPool # \xff")
    for name, why in (("none.yaml", "No such file"), ("latin.yaml", "utf-8")):
        done = run("bad.yaml", name)
        assert (done.exit_code, why in done.stderr, done.stdout.count("error")) == (2, True, 1)
    assert run().exit_code == 2
    assert run("good.yaml", "-o", "xml").exit_code == 2


def test_a_directory_is_what_kubectl_would_apply(files: Path) -> None:
    write(files, a=POOL, deep__er__b=POOL, hidden=POOL)
    (files / "hidden.yaml").rename(files / ".hidden.yaml")
    (files / "c.json").write_text(json.dumps(yaml.safe_load(BAD)))
    (files / "notes.txt").write_text(BAD)
    (files / "other.yml").write_text("{{ not: yaml")
    done = run(".")
    assert done.stdout.startswith("c.json:1:")
    assert "3 AgentPools in 4 files: 1 error" in done.stderr


def test_what_is_no_manifest_is_left_out_with_a_note(files: Path) -> None:
    patch = "kind: AgentPool\napiVersion: velda.io/v1\nmetadata: {name: cpu}\nspec: {autoscaler: {maxIdle: 9}}\n"
    write(
        files,
        base__pool=POOL,
        overlay__patches__more=patch,
        overlay__old=patch,
        chart__templates__pool="{{ AgentPool",
    )
    (files / "chart" / "Chart.yaml").write_text("name: chart\n")
    kustomization = "resources: [../base]\npatches:\n- path: patches/more.yaml\n- patch: |\n    kind: AgentPool\n"
    (files / "overlay" / "kustomization.yaml").write_text(f"{kustomization}patchesStrategicMerge: [old.yaml]\n")
    done = run(".")
    assert (done.exit_code, done.stdout) == (0, "")
    notes = [line.removeprefix("velda-apiserver check: ") for line in done.stderr.splitlines()]
    assert [note.partition(": skipped: ")[0] for note in notes[:-1]] == [
        "chart/templates/pool.yaml",
        "overlay/kustomization.yaml",
        "overlay/old.yaml",
        "overlay/patches/more.yaml",
    ]
    assert "helm template CHART" in notes[0]
    assert "kubectl kustomize DIR" in notes[1]
    assert notes[2].endswith(f"a patch of the kustomization in {files}/overlay")


def test_a_file_without_pools_is_not_even_parsed(files: Path) -> None:
    write(files, a="{{ a: b" * 1000)
    assert run("a.yaml").exit_code == 0
    write(files, b="# AgentPool\n" + "a" * (1 << 20))
    assert "longer than" in run("b.yaml").stdout


def test_json(files: Path) -> None:
    write(files, bad=BAD)
    done = run("bad.yaml", "none.yaml", "-o", "json")
    told = json.loads(done.stdout)
    assert [told[key] for key in ("files", "pools", "errors", "warnings")] == [1, 1, 1, 0]
    (problem,) = told["problems"]
    assert problem == {
        "file": "bad.yaml",
        "line": 9,
        "column": 14,
        "endLine": 9,
        "endColumn": 15,
        "severity": "error",
        "rule": "FieldValueInvalid",
        "pool": "cpu",
        "field": "spec.autoscaler.maxIdle",
        "message": "Invalid value: 0: must be at least minIdle, which is 1",
    }
    assert [note["file"] for note in told["failed"]] == ["none.yaml"]
    assert done.exit_code == 2


def sarif(*args: str) -> Any:
    log = json.loads(run(*args, "-o", "sarif").stdout)
    assert [error.message for error in Draft4Validator(SARIF).iter_errors(log)] == []
    return log["runs"][0]


def test_sarif_is_what_its_schema_says(files: Path) -> None:
    broken = "kind: AgentPool\n  a: b\n"
    write(files, a__b_c=BAD, odd=ODD, broken=broken, chart__templates__pool="{{ AgentPool }}")
    (files / "chart" / "Chart.yaml").write_text("name: chart\n")
    done = sarif(".", "none.yaml")
    assert [result["level"] for result in done["results"]] == ["error", "error", "warning"]
    first = done["results"][0]
    location = first["locations"][0]["physicalLocation"]
    assert location["artifactLocation"] == {"uri": "a/b_c.yaml"}
    assert location["region"] == {"startLine": 9, "startColumn": 14, "endLine": 9, "endColumn": 15}
    rules = done["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in done["results"])
    (invocation,) = done["invocations"]
    assert invocation["executionSuccessful"] is False
    assert [note["level"] for note in invocation["toolExecutionNotifications"]] == ["note", "error"]
    write(files, good=POOL)
    assert sarif("good.yaml")["results"] == []
    assert sarif(str(files / "odd.yaml"))["results"][0]["ruleId"] in RULES


def test_progress_is_shown_when_it_takes_long(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(files, a=POOL, b=POOL, c=POOL)
    assert "done" not in run(".").stderr
    monkeypatch.setattr(progress, "SOON", 0.0)
    assert "Checking: 0 of 3 done" in run(".").stderr


def test_nothing_that_a_file_says_moves_the_cursor(files: Path) -> None:
    write(files, a=POOL.replace("name: cpu\n", 'name: "\\e[2J"\n'))
    assert "\x1b" not in (said := run("a.yaml").stdout)
    assert "?[2J" in said or "[2J" in said


def hooks() -> Sequence[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load((CHECKOUT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    return loaded


def test_the_pre_commit_hook_runs_as_pre_commit_would_run_it(files: Path) -> None:
    """Its entry and the changed files, as words of one command; a code that is not 0 stops the commit."""
    (hook,) = hooks()
    write(files, good=POOL, bad=BAD)
    command = [str(Path(sys.executable).parent / hook["entry"].split()[0]), *hook["entry"].split()[1:]]
    for name, code in (("good.yaml", 0), ("bad.yaml", 1)):
        assert subprocess.run([*command, name], capture_output=True, check=False, timeout=60).returncode == code
    assert hook["language"] == "python"
