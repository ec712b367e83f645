"""The CustomResourceDefinition of AgentPool: our own fields, in one place, with their words for `kubectl explain`."""

from __future__ import annotations

from typing import Any

from app.core.fields import INT32_MAX
from app.core.scheduleshape import LONGEST_EXPRESSION, LONGEST_RUN, MOST_SCHEDULES
from app.model.agentpool import UNSEEN
from app.model.meta import GROUP, KIND, PLURAL, VERSION

Schema = dict[str, Any]

ABOUT = (
    "AgentPool keeps a pool of agents: worker pods that take sessions at once because they already run. The pool grows "
    "and shrinks by its autoscaler's numbers; its pods are made from its template."
)


def definition(pod_spec: Schema) -> Schema:
    """The whole manifest; ``pod_spec`` is the schema of spec.template.spec."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ap"],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": COLUMNS,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.autoscaler.minReplicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": _root(pod_spec)},
                }
            ],
        },
    }


def _column(name: str, path: str, kind: str = "integer", *, wide: bool = False, about: str) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path, "description": about}
    return {**column, "priority": 1} if wide else column


COLUMNS = [
    _column("Agents", ".status.replicas", about="Agents that exist or were asked for."),
    _column("Idle", ".status.idleReplicas", about="Agents that have joined and run no session."),
    _column("Running", ".status.runningReplicas", about="Agents that run sessions."),
    _column("Pending", ".status.pendingReplicas", about="Agents that have not joined yet."),
    _column("Queued", ".status.pendingSessions", about="Sessions that wait for a slot."),
    _column(
        "Ready", '.status.conditions[?(@.type=="Ready")].status', "string", about="Whether the pool can take sessions."
    ),
    _column("Min", ".spec.autoscaler.minReplicas", wide=True, about="minReplicas"),
    _column("Max", ".spec.autoscaler.maxReplicas", wide=True, about="maxReplicas"),
    _column("Idle Slots", ".status.idleSlots", wide=True, about="Slots that take a session at once."),
    _column("Unknown", ".status.unknownReplicas", wide=True, about="Agents without a connection."),
    _column("Rule", ".status.lastDecision.rule", "string", wide=True, about="What bound the last decision."),
    _column(
        "Reason",
        '.status.conditions[?(@.type=="Ready")].message',
        "string",
        wide=True,
        about="What Ready says in words.",
    ),
    _column("Age", ".metadata.creationTimestamp", "date", about="Time since the pool was created."),
]


def _count(about: str, *, minimum: int = 0, default: int | None = None) -> Schema:
    field: Schema = {"type": "integer", "format": "int32", "minimum": minimum, "maximum": INT32_MAX}
    return {"description": about, **field, **({} if default is None else {"default": default})}


def _object(
    about: str, properties: Schema, *, required: tuple[str, ...] = (), rules: list[Schema] | None = None
) -> Schema:
    schema: Schema = {"description": about, "type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if rules:
        schema["x-kubernetes-validations"] = rules
    return schema


def _rule(rule: str, message: str, field: str, reason: str = "FieldValueInvalid") -> Schema:
    """A CEL rule and the field that kubectl names when it does not hold."""
    return {"rule": rule, "message": message, "fieldPath": field, "reason": reason}


AUTOSCALER = _object(
    "How many agents the pool has. Idleness (minIdle, maxIdle) is counted in slots, size (minReplicas, maxReplicas) in "
    "agents; times are in seconds.",
    {
        "minReplicas": _count("The least number of agents, busy or idle. `kubectl scale` sets it.", default=0),
        "maxReplicas": _count("The greatest number of agents. Sessions beyond it wait in a queue."),
        "minIdle": _count("The least number of idle slots: agents are added until so many sessions can start at once."),
        "maxIdle": _count(
            "The greatest number of idle slots: above it idle agents go at once. Taken as at least minIdle + "
            "defaultSlotsPerAgent - 1, so that a pool can settle."
        ),
        "idleDecaySecond": _count(
            "Seconds after which one idle agent is removed, and then one more each time, while more slots are idle "
            "than minIdle needs.",
            default=60,
        ),
        "killUnknownAfterSecond": _count(
            "Seconds after which an agent without a connection to the server is deleted. Until then it may come back "
            "with its sessions.",
            default=300,
        ),
        "defaultSlotsPerAgent": _count(
            "Sessions that one agent runs at a time, until the agent itself says how many.", minimum=1, default=1
        ),
        "joinTimeoutSecond": _count(
            "Seconds within which a new agent must join; after that its pod is replaced. One that cannot be scheduled "
            "is kept.",
            minimum=1,
            default=600,
        ),
        "targetHitRate": {
            "description": "Share of sessions that are to find a slot at once, as 0.99. With it minIdle is chosen "
            "between minIdle and maxIdle, from the sessions that arrive and the time that agents take to join.",
            "type": "number",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 1,
            "exclusiveMaximum": True,
        },
    },
    required=("maxReplicas", "minIdle", "maxIdle"),
    rules=[
        _rule(
            "self.maxIdle >= self.minIdle",
            "must be at least minIdle",
            ".maxIdle",
        ),
        _rule(
            "!has(self.minReplicas) || self.maxReplicas >= self.minReplicas",
            "must be at least minReplicas",
            ".maxReplicas",
        ),
    ],
)


def _share(about: str) -> Schema:
    return {
        "description": about,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
        "pattern": "^(100|[0-9]{1,2})%$",
        "x-kubernetes-validations": [{"rule": "type(self) != int || self >= 0", "message": "must not be negative"}],
    }


ROLLOUT = _object(
    "How agents of an older template are replaced. Agents that run sessions are never touched.",
    {
        "strategy": {
            "description": "RollingUpdate replaces idle agents within maxSurge and maxUnavailable, others when their "
            "sessions end; OnDelete leaves them until they go for another reason.",
            "type": "string",
            "enum": ["RollingUpdate", "OnDelete"],
            "default": "RollingUpdate",
        },
        "maxSurge": _share(
            "Agents above those needed while a rollout goes on: a number, or a share as 25% (the default)."
        ),
        "maxUnavailable": _share(
            "Needed agents that may be missing meanwhile: a number, or a share as 25% (the default)."
        ),
        "progressDeadlineSecond": _count(
            "Seconds within which an agent of a new template must join; after that the pool goes back to the last "
            "template that worked, and says so (Stalled).",
            minimum=1,
            default=600,
        ),
    },
    rules=[
        _rule(
            "!has(self.maxSurge) || !has(self.maxUnavailable) || "
            "!((self.maxSurge == 0 || self.maxSurge == '0%') && "
            "(self.maxUnavailable == 0 || self.maxUnavailable == '0%'))",
            "must not be 0 when maxSurge is 0 too: nothing could be replaced",
            ".maxUnavailable",
        )
    ],
)

SCHEDULES = {
    "description": "Times at which the pool keeps more, or less, ready. Where several are active, the largest counts.",
    "type": "array",
    "maxItems": MOST_SCHEDULES,
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": _object(
        "From each start on, for its duration, its numbers replace the autoscaler's.",
        {
            "name": {"description": "What it is called.", "type": "string", "minLength": 1, "maxLength": 63},
            "schedule": {
                "description": "When it starts, as cron says it: minute, hour, day of month, month, day of week.",
                "type": "string",
                "minLength": 1,
                "maxLength": LONGEST_EXPRESSION,
            },
            "timeZone": {
                "description": "IANA name of the time zone that the schedule is in.",
                "type": "string",
                "maxLength": 64,
                "default": "UTC",
            },
            "durationSecond": {
                "description": "Seconds for which it is active, at most a week.",
                "type": "integer",
                "format": "int32",
                "minimum": 1,
                "maximum": LONGEST_RUN,
            },
            "minIdle": _count("minIdle while it is active."),
            "minReplicas": _count("minReplicas while it is active, at most maxReplicas."),
        },
        required=("name", "schedule", "durationSecond"),
        rules=[
            _rule(
                "has(self.minIdle) || has(self.minReplicas)",
                "minIdle or minReplicas is needed, what holds while it is active",
                ".minIdle",
                "FieldValueRequired",
            )
        ],
    ),
}


def _strings(about: str, most: int) -> Schema:
    return {
        "description": about,
        "type": "object",
        "maxProperties": most,
        "additionalProperties": {"type": "string"},
    }


def _template(pod_spec: Schema) -> Schema:
    return _object(
        "The pod that agents are made from: a complete PodTemplateSpec. What an agent needs besides (the ConfigMap at "
        "/run/velda, --pool) is added to the pods, not here.",
        {
            "metadata": _object(
                "Labels and annotations of the pods.",
                {
                    "labels": _strings("At least one label, by which you find the pool's pods.", 256),
                    "annotations": _strings("Annotations of the pods.", 1024),
                },
            ),
            "spec": {"description": "The pod's specification, as of any Pod.", **pod_spec},
        },
        required=("spec",),
        rules=[
            _rule(
                "has(self.metadata) && has(self.metadata.labels) && size(self.metadata.labels) > 0",
                "at least one label is needed, by which you find the pool's pods",
                ".metadata.labels",
                "FieldValueRequired",
            ),
            _rule(
                "size(self.spec.containers) > 0",
                "at least one container is needed, the agent",
                ".spec.containers",
                "FieldValueRequired",
            ),
        ],
    )


def _root(pod_spec: Schema) -> Schema:
    spec = _object(
        "What the pool should be.",
        {
            "autoscaler": AUTOSCALER,
            "template": _template(pod_spec),
            "rollout": ROLLOUT,
            "schedules": SCHEDULES,
        },
        required=("autoscaler", "template"),
    )
    return _object(
        ABOUT,
        {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": {**STATUS, "default": {"observedGeneration": UNSEEN}},
        },
        required=("spec",),
    )


def _number(about: str) -> Schema:
    return {"description": about, "type": "integer", "format": "int32"}


def _text(about: str) -> Schema:
    return {"description": about, "type": "string"}


def _time(about: str) -> Schema:
    return {"description": about, "type": "string", "format": "date-time"}


CONDITION = _object(
    "One aspect of the pool's state.",
    {
        "type": _text("Ready, Reconciling, Stalled or CapacityReady."),
        "status": {"description": "True, False or Unknown.", "type": "string", "enum": ["True", "False", "Unknown"]},
        "reason": _text("The cause, in one word."),
        "message": _text("The cause, in a sentence."),
        "observedGeneration": {
            "description": "metadata.generation that it is about.",
            "type": "integer",
            "format": "int64",
        },
        "lastTransitionTime": _time("When the status changed last."),
    },
    required=("type", "status", "reason", "message", "lastTransitionTime"),
)

STATUS = _object(
    "What the pool is. Written by velda-apiserver.",
    {
        "observedGeneration": {
            "description": f"metadata.generation that this is about; {UNSEEN}: nobody has looked at the pool yet.",
            "type": "integer",
            "format": "int64",
        },
        "replicas": _number("Agents that exist or were asked for; terminating ones are left out."),
        "readyReplicas": _number("Agents that have joined."),
        "idleReplicas": _number("Agents that have joined and run no session."),
        "runningReplicas": _number("Agents that run sessions."),
        "pendingReplicas": _number("Agents that have not joined yet."),
        "unknownReplicas": _number("Agents without a connection, that may come back."),
        "updatedReplicas": _number("Agents of the present template."),
        "outdatedReplicas": _number("Agents of an older template."),
        "slots": _number("Sessions that the joined agents can run."),
        "idleSlots": _number("Sessions that could start at once."),
        "pendingSessions": _number("Sessions that wait for a slot."),
        "selector": _text("Label selector of the pool's pods."),
        "lastError": _object(
            "Why agents are not created or do not join; absent when all is well.",
            {
                "cause": _text(
                    "quota, refused, unreachable, image, crash, configuration, unschedulable, gated, evicted …"
                ),
                "message": _text("What was said."),
                "time": _time("When it was said last."),
            },
        ),
        "rollout": _object(
            "Which template agents are made from.",
            {
                "templateHash": _text("The template that new agents are made from."),
                "stableTemplateHash": _text("The last template of which an agent has joined."),
                "failedTemplateHash": _text("The template of the spec, when it was given up."),
                "failure": _text("Why it was given up."),
                "startTime": _time("Since when agents are made from this template."),
            },
        ),
        "warmth": _object(
            "What schedules and targetHitRate make of minIdle and minReplicas; absent without them.",
            {
                "minIdle": _number("The minIdle that holds now."),
                "minReplicas": _number("The minReplicas that holds now."),
                "activeSchedules": {
                    "description": "Names of the schedules that are active.",
                    "type": "array",
                    "items": {"type": "string"},
                    "x-kubernetes-list-type": "atomic",
                },
                "prediction": _object(
                    "How minIdle was chosen for targetHitRate; the numbers are those of the last change.",
                    {
                        "minIdle": _number("The slots chosen."),
                        "bound": _text("What bound the choice: targetHitRate, held, minIdle, maxIdle or noArrivals."),
                        "arrivalsPerMinute": {"description": "Sessions that arrive a minute.", "type": "number"},
                        "joinSeconds": {"description": "Seconds that a new agent takes to join.", "type": "number"},
                        "expectedHitRate": {
                            "description": "Share of sessions expected to find a slot.",
                            "type": "number",
                        },
                        "message": _text("All of it in a sentence."),
                    },
                ),
            },
        ),
        "lastDecision": _object(
            "The last time that scaling did something, or was kept from it.",
            {
                "rule": _text("What bound it: minIdle, minReplicas, maxIdle, maxReplicas, idleDecaySecond, backOff …"),
                "reason": _text("Why, in words."),
                "size": _number("Agents that it saw."),
                "idleSlots": _number("Idle slots that it saw, pending agents counted and waiting sessions taken off."),
                "pendingSessions": _number("Waiting sessions that it saw."),
                "create": _number("Agents that it asked for."),
                "remove": _number("Agents that it removed."),
                "time": _time("When it was taken."),
                "nextTime": _time("When it is looked at again though nothing happens."),
            },
        ),
        "conditions": {
            "description": "Ready, Reconciling, Stalled (as kstatus reads them) and CapacityReady.",
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": CONDITION,
        },
    },
)
