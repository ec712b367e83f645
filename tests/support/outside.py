"""velda-apiserver outside of a cluster: its own configuration, and a kubectl context for the way in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.process import free_port


def configuration(*, namespace: str, **kubernetes: Any) -> dict[str, Any]:
    """velda-config.yaml, with ports that nobody uses, and a lease that is soon free after a sudden end."""
    return {
        "provisioners": [{"kubernetes": {"namespace": namespace, **kubernetes}}],
        "server": {"port": free_port(), "client_port": free_port()},
        "broker": {"port": free_port()},
        "leader_election": {"lease_duration": 4.0, "renew_deadline": 3.0, "retry_period": 0.5},
    }


def write(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path
