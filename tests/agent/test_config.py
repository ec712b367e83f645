"""velda.yaml: what is taken from it, what is accepted, and what stops the agent with one line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from app.agent.config import AgentConfig, ConfigError, load

EVERYTHING = """
broker: {address: "velda-apiserver.velda.svc:50051", public_address: "https://velda.example"}
pool: gpu-pool
sandbox_config:
  disk_source:
    mounted_disk_source: {local_path: /mnt}
    cas_config: {anything: [goes, here]}
  max_time: 24h
  host_mounts: [{source: /a, target: /b}]
daemon_config:
  work_dir_path: /tmp
  max_sessions: 4
  network: {private_cidr_range: 10.0.0.0/8, block_metadata_server: true}
  mtls_client_cert_path: /tls/tls.crt
  mtls_client_key_path: /tls/tls.key
  agent_name: worker-7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "velda.yaml"


def test_everything_that_the_real_agent_knows_is_accepted(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(EVERYTHING)
    assert load(file) == AgentConfig(
        broker_address="velda-apiserver.velda.svc:50051",
        pool="gpu-pool",
        agent_name="worker-7",
        max_sessions=4,
        client_certificate="/tls/tls.crt",
        client_key="/tls/tls.key",
    )
    assert not caplog.records


def test_the_broker_alone_is_enough(file: Path) -> None:
    file.write_text("broker:\n  address: b:1\ndaemon_config:\n")
    assert load(file) == AgentConfig(broker_address="b:1")


def test_an_unknown_key_is_told_and_ignored(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text("broker: {address: 'b:1'}\ndaemon_config: {max_session: 4}\n")
    with caplog.at_level(logging.WARNING):
        assert load(file).max_sessions == 1
    assert "daemon_config.max_session " in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "{file}: broker.address is missing"),
        ("broker: {}", "{file}: broker.address is missing"),
        ("- 1", "{file}: velda.yaml must be a mapping"),
        ("broker: localhost", "{file}: broker must be a mapping"),
        ("broker: {address: 5}", "{file}: broker.address must be a string"),
        ("broker:\n  address: b:1\npool: [a]", "{file}: pool must be a string"),
        ("broker:\n  address: [", "{file}:2: not valid YAML: "),
        ("broker: \x01", "{file}:1: not valid YAML: "),
        ("broker: {address: 'b:1'}\ndaemon_config: {max_sessions: two}", "{file}: daemon_config.max_sessions must be"),
        ("broker: {address: 'b:1'}\ndaemon_config: {max_sessions: -1}", "{file}: daemon_config.max_sessions must be"),
        ("broker: {address: 'b:1'}\ndaemon_config: {mtls_client_key_path: /k}", "go together"),
    ],
)
def test_a_mistake_is_one_line_with_the_file(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file)
    assert message.format(file=file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_text(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(file)


@pytest.mark.parametrize(
    ("configured", "environment", "name"),
    [
        ("from-config", {"AGENT_NAME": "from-env"}, "from-config"),
        ("", {"AGENT_NAME": "from-env"}, "from-env"),
        ("", {"AGENT_NAME": ""}, "gpu-pool-1"),
        ("", {}, "gpu-pool-1"),
    ],
)
def test_the_agents_name(
    monkeypatch: pytest.MonkeyPatch, configured: str, environment: dict[str, str], name: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-pool-1.velda.svc.cluster.local")
    assert AgentConfig(broker_address="b:1", agent_name=configured).name(environment) == name


def test_our_own_agent_speaks_tls_also_without_a_certificate(file: Path) -> None:
    file.write_text("broker: {address: 'b:1', tls: true}\n")
    assert load(file).speaks_tls
    file.write_text("broker: {address: 'b:1'}\n")
    assert not load(file).speaks_tls
    file.write_text("broker: {address: 'b:1', tls: maybe}\n")
    with pytest.raises(ConfigError, match=r"broker\.tls must be true or false"):
        load(file)
