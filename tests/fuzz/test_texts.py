"""velda-config.yaml and velda.yaml: whatever stands in them, they are taken or refused with one error of their own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.config import ConfigError, load
from app.settings import MOST_MISTAKES, Settings, SettingsError, parse
from tests.fuzz.mutations import texts
from tests.support.running import CHECKOUT

ANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
CONFIG: Any = yaml.safe_load((CHECKOUT / "examples" / "velda-config.yaml").read_text(encoding="utf-8"))
WHOLE: Any = {"provisioners": [{"kubernetes": {"namespaces": ["a"]}}]} | {
    name: dict(section)
    for name, section in Settings.model_validate({"provisioners": [{"kubernetes": {"all_namespaces": True}}]})
    .model_dump()
    .items()
    if name != "provisioners"
}
"""With every key."""
AGENT: Any = {
    "broker": {"address": "b:1", "public_address": "https://b", "tls": True},
    "pool": "gpu",
    "sandbox_config": {"max_time": "24h", "host_mounts": [{"source": "/a"}]},
    "daemon_config": {
        "max_sessions": 4,
        "agent_name": "a",
        "mtls_client_cert_path": "/c",
        "mtls_client_key_path": "/k",
    },
}
ODD = st.sampled_from(
    [
        "&a [*a]",
        "<<: *a",
        "*a",
        "? [a]\n: b",
        "!!bool x",
        "!!timestamp x",
        "!!binary $",
        "!!set {a, b}",
        "2001-99-99",
        "1:" * 999,
        "0x" + "f" * 5000,
        "9" * 5000,
        '"\\UFFFFFFFF"',
        "\t",
        "---",
        "%YAML 9.9",
        "{<<: {a: 1}}",
        "=",
        "~",
        ".nan",
        "-.inf",
    ]
)
"""YAML that JSON does not have."""


@st.composite
def yamls(draw: st.DrawFn, document: Any) -> str:
    """JSON is YAML; in some of its places there stands what only YAML has."""
    text = draw(texts(document))
    for odd in draw(st.lists(ODD, max_size=2)):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + odd + text[at:]
    return text


@ANY
@given(text=yamls(CONFIG) | yamls(WHOLE) | st.text())
def test_any_settings_are_taken_or_refused(text: str) -> None:
    lines = ["f:"]
    try:
        parse(text, "f")
    except SettingsError as error:
        lines = str(error).split("\nf:")
    assert lines[0].startswith("f:")
    assert len(lines) <= MOST_MISTAKES


@ANY
@given(text=yamls(AGENT) | st.text())
def test_any_velda_yaml_is_taken_or_refused(text: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        path = Path(file.name)
        path.write_bytes(text.encode(errors="surrogatepass"))
        said = str(path)
        try:
            assert load(path).broker_address
        except ConfigError as error:
            said = str(error)
        assert said.startswith(str(path))
