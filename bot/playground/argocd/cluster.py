"""A Kubernetes cluster's part of the simulation: Deployments that roll out pod by pod, and objects that just exist."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from bot.playground.argocd.manifests import Json, Key, key_of
from bot.playground.argocd.pods import CRASHING, Health, Pod, ReplicaSet, digest, stamp, uid
from bot.playground.argocd.timeline import Timeline

_OBSERVING = timedelta(milliseconds=200)
_RESTARTING = timedelta(seconds=5)
_RESTARTS_SHOWN = 20
_OLD_REPLICA_SETS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the cluster is."""

    pod_takes: timedelta
    progress_deadline: timedelta


class LiveObject:
    """An object of the cluster that has no life of its own, a Service for one."""

    def __init__(self, timeline: Timeline, manifest: Json, *, owner: str) -> None:
        self.timeline = timeline
        self.key = key_of(manifest)
        self.owner = owner
        self.applied = manifest
        self.created_at = timeline.now
        self.uid = uid("/".join(self.key), timeline.now)
        self.version = 1

    @property
    def health(self) -> Health | None:
        """Its health, or None for a kind that has none."""
        return Health(status="Healthy") if self.key[1] in {"Service", "Ingress"} else None

    def apply(self, manifest: Json) -> None:
        """Take a new desired state."""
        self.applied = manifest
        self.version += 1

    def live(self) -> Json:
        """The object as the cluster would return it."""
        own = self.applied["metadata"]
        metadata = own | {
            "uid": self.uid,
            "resourceVersion": str(self.version),
            "creationTimestamp": stamp(self.created_at),
        }
        return self.applied | {"metadata": metadata} | self._status()

    def _status(self) -> Json:
        if self.key[1] == "Ingress":
            return {"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.80"}]}}}
        return {"status": {"loadBalancer": {}}} if self.key[1] == "Service" else {}


class Deployment(LiveObject):
    """A Deployment with Kubernetes' rolling update: surge a quarter, lose at most a quarter, one pod after the other."""

    def __init__(self, cluster: "Cluster", manifest: Json, *, owner: str) -> None:
        super().__init__(cluster.timeline, manifest, owner=owner)
        self._cluster = cluster
        self._pods_made = 0
        self._progress_at = self.timeline.now
        self._deadline_passed = False
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
    def pods(self) -> list[Pod]:
        """Every pod, terminating ones as well."""
        return [pod for replica_set in self.replica_sets for pod in replica_set.pods]

    @property
    def is_complete(self) -> bool:
        """Whether all pods are new, ready and as many as desired."""
        active = [pod for pod in self.pods if not pod.is_terminating]
        new = self.current.active
        return len(active) == len(new) == self.desired and all(pod.is_ready for pod in new)

    @property
    def health(self) -> Health:
        """Its health in the words of gitops-engine's check of an apps/v1 Deployment."""
        if self.generation > self.observed:
            message = "observed deployment generation less than desired generation"
            return Health(status="Progressing", message=f"Waiting for rollout to finish: {message}")
        if self._deadline_passed:
            return Health(
                status="Degraded", message=f'Deployment "{self.key[3]}" exceeded its progress deadline'
            )
        updated = len(self.current.active)
        total = sum(len(replica_set.active) for replica_set in self.replica_sets)
        available = self._available()
        if updated < self.desired:
            message = f"{updated} out of {self.desired} new replicas have been updated..."
        elif total > updated:
            message = f"{total - updated} old replicas are pending termination..."
        elif available < updated:
            message = f"{available} of {updated} updated replicas are available..."
        else:
            return Health(status="Healthy")
        return Health(status="Progressing", message=f"Waiting for rollout to finish: {message}")

    def apply(self, manifest: Json) -> None:
        """Take a new desired state; a changed pod template begins a rollout."""
        changed = manifest["spec"]["template"] != self.applied["spec"]["template"]
        super().apply(manifest)
        self.generation += 1
        if changed:
            self._begin_rollout()
        else:
            self.timeline.after(_OBSERVING, self._observe)
        self._report()

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
        replica_set.is_doomed = self._cluster.takes_doom(self.owner)
        self._deadline_passed = False
        self.timeline.after(_OBSERVING, self._observe)

    def _observe(self) -> None:
        self.observed = self.generation
        self._progressed()
        self._roll()
        self._report()

    def _roll(self) -> None:
        """Take every step the rolling update allows now, as the Deployment controller does on each change."""
        new = self.current
        old = [replica_set for replica_set in self.replica_sets if replica_set is not new]
        for replica_set in old:
            for pod in replica_set.active:
                if not pod.is_ready:
                    self._terminate(pod, replica_set)
        for pod in new.active[self.desired :]:
            self._terminate(pod, new)
        surge = math.ceil(self.desired / 4)
        while len(new.active) < self.desired and self._total() < self.desired + surge:
            self._create(new)
        for replica_set in old:
            for pod in replica_set.active:
                if self._available() > self.desired - self.desired // 4:
                    self._terminate(pod, replica_set)
        while len(new.active) < self.desired and self._total() < self.desired + surge:
            self._create(new)

    def _total(self) -> int:
        return sum(len(replica_set.active) for replica_set in self.replica_sets)

    def _available(self) -> int:
        return sum(pod.is_ready for replica_set in self.replica_sets for pod in replica_set.active)

    def _create(self, replica_set: ReplicaSet) -> None:
        self._pods_made += 1
        name = f"{replica_set.name}-{digest([self.uid, self._pods_made])[:5]}"
        now = self.timeline.now
        pod = Pod(name=name, uid=uid(name, now), template=replica_set.template, created_at=now)
        replica_set.pods.append(pod)
        outcome = self._crash if replica_set.is_doomed else self._become_ready
        self.timeline.after(self._cluster.pace.pod_takes, lambda: outcome(pod))
        self._progressed()

    def _become_ready(self, pod: Pod) -> None:
        if not pod.is_terminating:
            pod.reason = "Running"
            self._progressed()
            self._roll()
            self._report()

    def _crash(self, pod: Pod) -> None:
        if not pod.is_terminating and pod in self.pods:
            pod.reason = CRASHING
            pod.restarts += 1
            if pod.restarts < _RESTARTS_SHOWN:
                self.timeline.after(_RESTARTING, lambda: self._crash(pod))
            self._report()

    def _terminate(self, pod: Pod, replica_set: ReplicaSet) -> None:
        pod.reason = "Terminating"
        self.timeline.after(self._cluster.pace.pod_takes, lambda: self._forget(pod, replica_set))

    def _forget(self, pod: Pod, replica_set: ReplicaSet) -> None:
        replica_set.pods.remove(pod)
        retired = [known for known in self.replica_sets if not known.pods and known is not self.current]
        for known in sorted(retired, key=lambda known: known.revision)[:-_OLD_REPLICA_SETS]:
            self.replica_sets.remove(known)

    def _progressed(self) -> None:
        self._progress_at = at = self.timeline.now
        self._deadline_passed = False
        self.timeline.after(self._cluster.pace.progress_deadline, lambda: self._check_deadline(at))

    def _check_deadline(self, at: datetime) -> None:
        if self._progress_at == at and not self.is_complete:
            self._deadline_passed = True
            self._report()

    def _report(self) -> None:
        """Tell the cluster's watcher if the Deployment's status is another one now."""
        status = self._status() | {"generation": self.generation}
        if status != self._last_status:
            self._last_status = status
            self.version += 1
            self._cluster.changed(self.owner)

    def live(self) -> Json:
        """The Deployment as the cluster would return it, with the defaults of its API."""
        live = super().live()
        deadline = max(1, int(self._cluster.pace.progress_deadline.total_seconds()))
        live["metadata"] = live["metadata"] | {"generation": self.generation}
        live["spec"] = {
            "progressDeadlineSeconds": deadline,
            "revisionHistoryLimit": _OLD_REPLICA_SETS,
        } | live["spec"]
        return live

    def _status(self) -> Json:
        available, total = self._available(), self._total()
        status: Json = {
            "observedGeneration": self.observed,
            "replicas": total,
            "updatedReplicas": len(self.current.active),
            "readyReplicas": available,
            "availableReplicas": available,
            "unavailableReplicas": max(0, max(total, self.desired) - available),
        }
        present = {name: value for name, value in status.items() if value}
        return {"status": present | {"conditions": self._conditions(available)}}

    def _conditions(self, available: int) -> list[Json]:
        enough = available >= self.desired - self.desired // 4
        name = self.current.name
        if self._deadline_passed:
            reason, message = "ProgressDeadlineExceeded", f'ReplicaSet "{name}" has timed out progressing.'
        elif self.is_complete:
            reason, message = "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.'
        else:
            reason, message = "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'
        return [
            {
                "type": "Available",
                "status": str(enough),
                "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            },
            {
                "type": "Progressing",
                "status": str(not self._deadline_passed),
                "reason": reason,
                "message": message,
            },
        ]


class Cluster:
    """Every live object, and who wants to hear that one changed."""

    def __init__(self, timeline: Timeline, pace: Pace, changed: Callable[[str], None]) -> None:
        self.timeline = timeline
        self.pace = pace
        self.changed = changed
        self._doomed: list[str | None] = []
        self._objects: dict[Key, LiveObject] = {}

    def doom(self, owner: str | None) -> None:
        """Let the pods of the next rollout crash: of one owner's, or of whichever comes first."""
        self._doomed.append(owner)

    def takes_doom(self, owner: str) -> bool:
        """Whether a rollout that begins now is to crash; asking uses the doom up."""
        for doomed in (owner, None):
            if doomed in self._doomed:
                self._doomed.remove(doomed)
                return True
        return False

    @property
    def awaits_doom(self) -> bool:
        """Whether some rollout that has not begun yet is to crash."""
        return bool(self._doomed)

    def spare(self) -> None:
        """Let the coming rollouts go well after all."""
        self._doomed.clear()

    def owned(self, owner: str) -> dict[Key, LiveObject]:
        """The objects of one application."""
        return {key: live for key, live in self._objects.items() if live.owner == owner}

    def apply(self, manifest: Json, *, owner: str) -> str:
        """Create or change an object; the answer is kubectl's word for what happened."""
        key = key_of(manifest)
        live = self._objects.get(key)
        if live is None:
            of_kind = Deployment(self, manifest, owner=owner) if key[1] == "Deployment" else None
            self._objects[key] = of_kind or LiveObject(self.timeline, manifest, owner=owner)
            self.changed(owner)
            return "created"
        if live.applied == manifest:
            return "unchanged"
        live.apply(manifest)
        self.changed(owner)
        return "configured"

    def delete(self, key: Key) -> None:
        """Remove an object with its pods."""
        self.changed(self._objects.pop(key).owner)
