"""Nodes: pods are scheduled, started, held up, evicted and ended; each running one has an agent inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.model.meta import POOL_LABEL
from tests.sim.agents import SimAgent
from tests.sim.api import GRACE, PODS, Object, deleting, finished, key_of, label, uid

if TYPE_CHECKING:
    from tests.sim.world import World

TROUBLES = ("late", "never", "image", "image for ever", "crash", "unschedulable", "gated", "dies", "wrong name")


class Kubelet:
    """``trouble`` is the share of new pods that something is wrong with."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.trouble = 0.0
        self.held: dict[str, str] = {}
        """Pods that wait for a node or a gate, with what is wrong, by uid."""
        self.stuck: set[str] = set()
        """Uids of terminating pods that do not go."""
        self.nodes_vanish = False
        self._addresses = 0

    def on_pod(self, what: str, pod: Object) -> None:
        if what == "added":
            self.world.loop.later(self.world.rng.uniform(0.05, 1.0), self._schedule, uid(pod), key_of(pod))
        elif what == "deleting":
            self._terminate(pod)
        else:
            self._gone(pod)

    def _find(self, pod_uid: str, key: tuple[str, str]) -> Object | None:
        pod = self.world.api.find(PODS, key)
        return pod if pod and uid(pod) == pod_uid else None

    # Starting.

    def _schedule(self, pod_uid: str, key: tuple[str, str]) -> None:
        pod, rng = self._find(pod_uid, key), self.world.rng
        if pod is None or deleting(pod):
            return
        trouble = rng.choice(TROUBLES) if rng.random() < self.trouble else ""
        if _image(pod) == "bad":
            trouble = "image for ever"
        if trouble in ("unschedulable", "gated"):
            self.held[pod_uid] = trouble
            reason = "Unschedulable" if trouble == "unschedulable" else "SchedulingGated"
            condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": "0/3 nodes"}
            self._status(pod, {"phase": "Pending", "conditions": [condition]})
            self.world.loop.later(rng.choice((5.0, 60.0, 900.0)), self.release, pod_uid, key)
            return
        self._place(pod, trouble)

    def release(self, pod_uid: str, key: tuple[str, str]) -> None:
        """There is room for the pod now, or its gate opens."""
        pod = self._find(pod_uid, key)
        if self.held.pop(pod_uid, None) and pod and not deleting(pod):
            self._place(pod, "")

    def _place(self, pod: Object, trouble: str) -> None:
        rng, loop = self.world.rng, self.world.loop
        pod = self.world.api.write(PODS, pod, spec={**pod["spec"], "nodeName": f"node{rng.randrange(3)}"})
        if trouble.startswith("image"):
            self._waiting(pod, "ImagePullBackOff")
            if trouble == "image":
                loop.later(rng.choice((3.0, 15.0, 100.0)), self._run, uid(pod), key_of(pod), "")
        else:
            loop.later(rng.uniform(0.1, 1.5), self._run, uid(pod), key_of(pod), trouble)

    def _run(self, pod_uid: str, key: tuple[str, str], trouble: str) -> None:
        pod = self._find(pod_uid, key)
        if pod is None or deleting(pod) or finished(pod):
            return
        rng, loop = self.world.rng, self.world.loop
        self._addresses += 1
        ip = f"10.0.{self._addresses // 250}.{self._addresses % 250 + 1}"
        running = {"phase": "Running", "podIP": ip, "containerStatuses": [{"name": "agent", "state": {"running": {}}}]}
        pod = self._status(pod, running)
        if trouble == "crash":
            self._waiting(pod, "CrashLoopBackOff", podIP=ip, phase="Running")
            return
        if trouble == "dies":
            loop.later(rng.uniform(0.0, 3.0), self.finish, pod_uid, key, "Failed", "Error")
        agent = SimAgent(
            self.world,
            pool=(key[0], label(pod, POOL_LABEL)),
            name=key[1],
            pod_uid=pod_uid,
            ip=ip,
            slots=self.world.slots_of(pod),
        )
        self.world.agents[pod_uid] = agent
        if trouble == "wrong name":
            others = [other["metadata"]["name"] for other in self.world.api.all(PODS)]
            agent.agent_id = rng.choice([*others, "nobody"])
        if trouble != "never":
            delay = rng.choice((5.0, 50.0, 300.0)) if trouble == "late" else rng.choice((0.01, 0.1, 1.0))
            loop.later(delay, agent.redial)

    # Ending.

    def finish(self, pod_uid: str, key: tuple[str, str], phase: str, reason: str) -> None:
        """The pod ends by itself or is evicted; it stays as an object."""
        pod = self._find(pod_uid, key)
        if pod is None or finished(pod):
            return
        self._kill(pod_uid)
        self._status(pod, {**pod["status"], "phase": phase, "reason": reason})

    def vanish(self, pod: Object) -> None:
        """Its node is gone: the agent with it, and the pod cannot be deleted but by force."""
        self._kill(uid(pod))
        self.stuck.add(uid(pod))

    def free(self) -> None:
        """Nodes that were gone are given up, and so are their pods."""
        for pod in self.world.api.all(PODS):
            if uid(pod) in self.stuck and deleting(pod):
                self.world.api.remove(PODS, pod)
        self.stuck.clear()

    def _terminate(self, pod: Object) -> None:
        pod_uid, loop = uid(pod), self.world.loop
        if self.nodes_vanish and self.world.rng.random() < 0.3:
            self.vanish(pod)
        if pod_uid in self.stuck:
            return
        agent = self.world.agents.get(pod_uid)
        if agent and not agent.dead:
            loop.later(self.world.rng.uniform(0.0, 0.5), agent.stop, lambda: self._ended(pod))
            loop.later(float(pod["metadata"].get("deletionGracePeriodSeconds", GRACE)), self._ended, pod)
        else:
            loop.later(self.world.rng.uniform(0.05, 1.0), self._ended, pod)

    def _ended(self, pod: Object) -> None:
        if uid(pod) not in self.stuck:
            self._kill(uid(pod))
            self.world.api.remove(PODS, pod)
            self.world.step("pod ended")

    def _gone(self, pod: Object) -> None:
        self._kill(uid(pod))
        self.held.pop(uid(pod), None)
        self.world.agents.pop(uid(pod), None)

    def _kill(self, pod_uid: str) -> None:
        if agent := self.world.agents.get(pod_uid):
            agent.die()

    # Status.

    def _waiting(self, pod: Object, reason: str, **status: Any) -> None:
        container = {"name": "agent", "state": {"waiting": {"reason": reason, "message": f"because of {reason}"}}}
        self._status(pod, {"phase": "Pending", "containerStatuses": [container], **status})

    def _status(self, pod: Object, status: dict[str, Any]) -> Object:
        written = self.world.api.write(PODS, pod, status=status)
        self.world.step("pod status")
        return written


def _image(pod: Object) -> str:
    return str(pod["spec"]["containers"][0].get("image", ""))
