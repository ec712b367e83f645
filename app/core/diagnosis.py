"""What is wrong with a worker pod, in the pod's own words, and whether a new one could be better."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from app.model.pod import ContainerStatus, Pod


class Cause(StrEnum):
    """Why agents do not come; each is backed off from by itself."""

    QUOTA = "quota"
    REFUSED = "refused"
    """The API server does not take the pod: invalid, forbidden, a missing account."""
    UNREACHABLE = "unreachable"
    """The API server gives no answer."""
    IMAGE = "image"
    CRASH = "crash"
    CONFIGURATION = "configuration"
    """A container cannot be made: a missing ConfigMap or Secret, a bad mount."""
    UNSCHEDULABLE = "unschedulable"
    GATED = "gated"
    EVICTED = "evicted"
    NEVER_JOINED = "never joined"


HELD = frozenset({Cause.UNSCHEDULABLE, Cause.GATED})
"""Causes that lie outside the pod: it is kept until a node or its gate lets it start; another would fare no better."""

_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONFIGURATION = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"}
)


class Problem(msgspec.Struct, frozen=True):
    """``reason`` is Kubernetes' own word for it (ImagePullBackOff, Evicted …), ``message`` its explanation."""

    cause: Cause
    reason: str
    message: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.message else self.reason


def diagnose(pod: Pod) -> Problem | None:
    """What keeps the pod from becoming an agent, or ended it; None while nothing is known to be wrong."""
    status = pod.status
    if status.ended:
        return _ended(pod)
    for container in (*status.init_container_statuses, *status.container_statuses):
        if problem := _waiting(container):
            return problem
    for condition in status.conditions:
        if condition.type == "PodScheduled" and condition.status == "False":
            cause = Cause.GATED if condition.reason == "SchedulingGated" else Cause.UNSCHEDULABLE
            return Problem(cause, condition.reason or "Unschedulable", condition.message)
    return None


def _ended(pod: Pod) -> Problem:
    status = pod.status
    if status.reason:
        cause = Cause.EVICTED if status.reason in ("Evicted", "Preempting", "NodeShutdown") else Cause.CRASH
        return Problem(cause, status.reason, status.message)
    for container in (*status.init_container_statuses, *status.container_statuses):
        if container.state.terminated:
            return _exit(container)
    return Problem(Cause.CRASH, status.phase)


def _waiting(container: ContainerStatus) -> Problem | None:
    waiting = container.state.waiting
    if waiting is None:
        return None
    if waiting.reason in _IMAGE:
        return Problem(Cause.IMAGE, waiting.reason, waiting.message)
    if waiting.reason in _CONFIGURATION:
        return Problem(Cause.CONFIGURATION, waiting.reason, waiting.message)
    if waiting.reason == "CrashLoopBackOff":
        last = container.last_state.terminated
        return Problem(Cause.CRASH, waiting.reason, _exit(container).message if last else waiting.message)
    return None


def _exit(container: ContainerStatus) -> Problem:
    ended = container.state.terminated or container.last_state.terminated
    code = ended.exit_code if ended else 0
    words = f"container {container.name} ended with exit code {code}"
    detail = ended.message.strip() if ended else ""
    return Problem(Cause.CRASH, (ended.reason if ended else "") or "Error", f"{words}: {detail}" if detail else words)
