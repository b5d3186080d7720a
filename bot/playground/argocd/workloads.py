"""What every workload of the simulated cluster has: templates, pods that come and go, and a deadline."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from bot.playground.argocd.manifests import Json, Key
from bot.playground.argocd.objects import LiveObject
from bot.playground.argocd.pods import NO_IMAGE, TROUBLES, Health, Pod, ReplicaSet, digest, uid
from bot.playground.argocd.timeline import Timeline

NODES = ("node-1", "node-2", "node-3")
_OBSERVING = timedelta(milliseconds=200)
_RESTARTING = timedelta(seconds=5)
_RESTARTS_SHOWN = 20
OLD_REPLICA_SETS = 10
"""How many templates without pods are kept, Kubernetes' default."""
_NO_TIME = timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the cluster is; a pod that flaps does so after a moment, for a moment."""

    pod_takes: timedelta
    progress_deadline: timedelta
    flaps_after: timedelta = _NO_TIME
    flaps_for: timedelta = _NO_TIME


class Surroundings(Protocol):
    """What a workload needs of its cluster."""

    timeline: Timeline
    pace: Pace

    def takes_doom(self, owner: str) -> str | None:
        """The trouble that a rollout which begins now is to get into; asking uses it up."""

    def takes_flap(self, owner: str) -> bool:
        """Whether a rollout that is complete now is to flap once; asking uses it up."""

    def changed(self, owner: str) -> None:
        """Hear that an object of an owner changed."""


class Workload(LiveObject):
    """What makes pods of a template, one `ReplicaSet` for each template it has had."""

    def __init__(self, cluster: Surroundings, manifest: Json, *, owner: str) -> None:
        super().__init__(cluster.timeline, manifest, owner=owner)
        self.cluster = cluster
        self._pods_made = 0
        self._progress_at = self.timeline.now
        self.deadline_passed = False
        self._last_status: Json = {}
        self.generation = 1
        self.observed = 0
        self.replica_sets: list[ReplicaSet] = []
        self._begin_rollout()

    @property
    def desired(self) -> int:
        """How many pods it should have."""
        return int(self.applied["spec"].get("replicas", 1))

    @property
    def current(self) -> ReplicaSet:
        """The ReplicaSet of the newest template."""
        return max(self.replica_sets, key=lambda replica_set: replica_set.revision)

    @property
    def old(self) -> list[ReplicaSet]:
        """The ReplicaSets of the templates before."""
        current = self.current
        return [replica_set for replica_set in self.replica_sets if replica_set is not current]

    @property
    def pods(self) -> list[Pod]:
        """Every pod, terminating ones as well."""
        return [pod for replica_set in self.replica_sets for pod in replica_set.pods]

    @property
    def active(self) -> list[Pod]:
        """Its pods that are not terminating."""
        return [pod for pod in self.pods if not pod.is_terminating]

    @property
    def available(self) -> int:
        """How many of its pods serve."""
        return sum(pod.is_ready for pod in self.active)

    @property
    def is_complete(self) -> bool:
        """Whether all pods are new, ready and as many as desired."""
        new = self.current.active
        return len(self.active) == len(new) == self.desired and all(pod.is_ready for pod in new)

    @property
    @abstractmethod
    def health(self) -> Health:
        """Its health in gitops-engine's words."""

    @abstractmethod
    def roll(self) -> None:
        """Take every step that its way of rolling out allows now."""

    @abstractmethod
    def figures(self) -> Json:
        """The numbers of its status."""

    def apply(self, manifest: Json) -> None:
        """Take a new desired state; a changed pod template begins a rollout."""
        changed = manifest["spec"]["template"] != self.applied["spec"]["template"]
        super().apply(manifest)
        self.generation += 1
        if changed:
            self._begin_rollout()
        else:
            self.timeline.after(_OBSERVING, self._observe)
        self.report()

    def recover(self) -> None:
        """Let the pods that are in trouble serve after all."""
        for replica_set in self.replica_sets:
            replica_set.doom = None
        for pod in self.pods:
            if pod.reason in TROUBLES:
                self._become_ready(pod)

    def create(self, replica_set: ReplicaSet) -> None:
        """Start one pod more."""
        self._pods_made += 1
        now, name = self.timeline.now, self.pod_name(replica_set, self._pods_made)
        pod = Pod(
            name=name,
            uid=uid(f"{name} {self._pods_made}", now),
            template=replica_set.template,
            created_at=now,
            node=NODES[self._pods_made % len(NODES)],
        )
        replica_set.pods.append(pod)
        doom = replica_set.doom
        outcome = (lambda: self._break(pod, doom)) if doom else (lambda: self._become_ready(pod))
        self.timeline.after(self.cluster.pace.pod_takes, outcome)
        self._progressed()

    def pod_name(self, replica_set: ReplicaSet, number: int) -> str:
        """The name of the next pod."""
        return f"{replica_set.name}-{digest([self.uid, number])[:5]}"

    def terminate(self, pod: Pod, replica_set: ReplicaSet) -> None:
        """Tell a pod to go."""
        pod.reason = "Terminating"
        self.timeline.after(self.cluster.pace.pod_takes, lambda: self.forget(pod, replica_set))

    def forget(self, pod: Pod, replica_set: ReplicaSet) -> None:
        """Let go of a pod that has gone, and of the oldest templates without pods."""
        replica_set.pods.remove(pod)
        retired = [known for known in self.replica_sets if not known.pods and known is not self.current]
        for known in sorted(retired, key=lambda known: known.revision)[:-OLD_REPLICA_SETS]:
            self.replica_sets.remove(known)

    def report(self) -> None:
        """Tell the cluster's watcher if the status is another one now."""
        status = self.status() | {"generation": self.generation}
        if status != self._last_status:
            self._last_status = status
            self.version += 1
            self.cluster.changed(self.owner)

    def live(self) -> Json:
        """The workload as the cluster would return it."""
        live = super().live()
        live["metadata"] = live["metadata"] | {"generation": self.generation}
        return live

    def status(self) -> Json:
        """Its `status`; numbers that are zero are left out, as Go's omitempty does."""
        figures = {"observedGeneration": self.observed} | self.figures()
        return {"status": {name: value for name, value in figures.items() if value}}

    def _begin_rollout(self) -> None:
        template = self.applied["spec"]["template"]
        name = f"{self.key[3]}-{digest(template)[:10]}"
        revision = max((known.revision for known in self.replica_sets), default=0) + 1
        replica_set = next((known for known in self.replica_sets if known.name == name), None)
        if replica_set is None:
            now = self.timeline.now
            replica_set = ReplicaSet(
                name=name, uid=uid(name, now), template=template, revision=revision, created_at=now
            )
            self.replica_sets.append(replica_set)
        replica_set.revision = revision
        replica_set.doom = self.cluster.takes_doom(self.owner)
        self.deadline_passed = False
        self.timeline.after(_OBSERVING, self._observe)

    def _observe(self) -> None:
        self.observed = self.generation
        self._progressed()
        self.roll()
        self.report()

    def _become_ready(self, pod: Pod) -> None:
        if pod.is_terminating or pod not in self.pods:
            return
        pod.reason = "Running"
        self._progressed()
        self.roll()
        self.report()
        if self.is_complete and self.cluster.takes_flap(self.owner):
            self.timeline.after(self.cluster.pace.flaps_after, lambda: self._stumble(pod))

    def _stumble(self, pod: Pod) -> None:
        """Let a pod's readiness probe fail for a moment."""
        if pod.is_ready:
            pod.reason = "NotReady"
            self.timeline.after(self.cluster.pace.flaps_for, lambda: self._become_ready(pod))
            self.report()

    def _break(self, pod: Pod, trouble: str) -> None:
        if pod.is_terminating or pod.is_ready or pod not in self.pods:
            return
        pod.reason = trouble
        if trouble != NO_IMAGE:
            pod.restarts += 1
            if pod.restarts < _RESTARTS_SHOWN:
                self.timeline.after(_RESTARTING, lambda: self._break(pod, trouble))
        self.report()

    def _progressed(self) -> None:
        self._progress_at = at = self.timeline.now
        self.deadline_passed = False
        self.timeline.after(self.cluster.pace.progress_deadline, lambda: self._check_deadline(at))

    def _check_deadline(self, at: datetime) -> None:
        if self._progress_at == at and not self.is_complete:
            self.deadline_passed = True
            self.report()


def workloads_of(live: Mapping[Key, LiveObject]) -> list[Workload]:
    """The workloads among an application's objects."""
    return [found for found in live.values() if isinstance(found, Workload)]
