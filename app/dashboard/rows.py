"""What the pages show of a pool, an agent and a session, as JSON. A status may hold anything: what is odd is left out.

Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.broker.sessions import Session, Status
from app.core.agents import AgentView
from app.core.diagnosis import diagnose
from app.core.status import conditions_of, mapping
from app.core.workers import WAITING, state_of
from app.dashboard.history import count, sample
from app.model.agentpool import AgentPool
from app.model.pod import Pod

Row = dict[str, Any]

LIMITS = ("minReplicas", "maxReplicas", "minIdle", "maxIdle")


def pool_row(pool: AgentPool) -> Row:
    """A pool at a glance."""
    status, meta = mapping(pool.status), pool.metadata
    limits = mapping(mapping(pool.spec).get("autoscaler"))
    state, message = _state(pool)
    return {
        "key": str(meta.key),
        "namespace": meta.namespace,
        "name": meta.name,
        "state": state,
        "message": message,
        "error": _text(mapping(status.get("lastError")), "message"),
        "slots": count(status, "slots"),
        "idleSlots": count(status, "idleSlots"),
        "created": meta.creation_timestamp.timestamp() if meta.creation_timestamp else None,
        **sample(status),
        **{name: count(limits, name) for name in LIMITS},
    }


def pool_detail(pool: AgentPool) -> Row:
    """A pool from near."""
    status = mapping(pool.status)
    decision, rollout = mapping(status.get("lastDecision")), mapping(status.get("rollout"))
    return {
        **pool_row(pool),
        "updated": count(status, "updatedReplicas"),
        "outdated": count(status, "outdatedReplicas"),
        "template": _text(rollout, "templateHash"),
        "conditions": [
            {name: _text(condition, name) for name in ("type", "status", "reason", "message", "lastTransitionTime")}
            for condition in conditions_of(status).values()
        ],
        "decision": {name: _text(decision, name) for name in ("rule", "reason", "time")},
    }


def _state(pool: AgentPool) -> tuple[str, str]:
    """One word for all conditions, and what the one says that counts."""
    conditions = conditions_of(mapping(pool.status))
    ready, stalled = conditions.get("Ready", {}), conditions.get("Stalled", {})
    if pool.metadata.deletion_timestamp:
        return "deleting", "It is being deleted, its agents first"
    if stalled.get("status") == "True":
        return "stalled", _text(stalled, "message")
    if ready.get("status") == "False":
        return "failing", _text(ready, "message")
    return "ready" if ready.get("status") == "True" else "filling", _text(ready, "message")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def agent_rows(pods: Mapping[str, Pod], agents: Mapping[str, AgentView], *, epoch: float, most: int) -> dict[str, Row]:
    """By name, those of trouble first if there are more than ``most``. ``epoch`` is when the monotonic clock began."""
    rows = {name: _agent_row(name, pods.get(name), agents.get(name), epoch) for name in {**pods, **agents}}
    if len(rows) <= most:
        return rows
    ranked = sorted(rows.items(), key=lambda item: (item[1]["state"] in ("idle", "running"), item[0]))
    return dict(ranked[:most])


def _agent_row(name: str, pod: Pod | None, agent: AgentView | None, epoch: float) -> Row:
    state = state_of(pod, agent)
    problem = diagnose(pod) if pod and state in WAITING else None
    created = pod.metadata.creation_timestamp if pod else None
    return {
        "key": name,
        "state": state.value,
        "sessions": agent.sessions if agent else 0,
        "slots": agent.slots if agent else None,
        "since": round(epoch + agent.since) if agent else created.timestamp() if created else None,
        "node": pod.spec.node_name if pod else "",
        "problem": str(problem) if problem else "",
    }


_STATES = {
    Status.STATUS_QUEUEING: "queued",
    Status.STATUS_PENDING: "starting",
    Status.STATUS_RUNNING: "running",
    Status.STATUS_STALE: "stale",
}


def session_rows(sessions: Sequence[Session], *, epoch: float, most: int) -> dict[str, Row]:
    """By instance and id; those that wait first if there are more than ``most``."""
    return {session.trace_id: _session_row(session, epoch) for session in sessions[:most]}


def _session_row(session: Session, epoch: float) -> Row:
    return {
        "key": session.trace_id,
        "id": session.id,
        "instance": str(session.request.instance_id),
        "state": "ending" if session.ending else _STATES[session.status],
        "user": session.request.user,
        "service": session.request.service_name,
        "agent": session.agent.name if session.agent else "",
        "requested": round(epoch + session.requested_at),
    }
