"""The kinds of workloads: Deployments, StatefulSets and DaemonSets, with their ways of rolling out and their words."""

import math
from collections.abc import Mapping

from bot.playground.argocd.manifests import Json
from bot.playground.argocd.pods import Health, Pod, ReplicaSet
from bot.playground.argocd.workloads import NODES, OLD_REPLICA_SETS, Workload


class Deployment(Workload):
    """A Deployment with Kubernetes' rolling update: surge a quarter, lose at most a quarter, one pod after the other."""

    @property
    def is_paused(self) -> bool:
        """Whether its rollout is held."""
        return bool(self.applied["spec"].get("paused"))

    @property
    def health(self) -> Health:
        """Its health in the words of gitops-engine's check of an apps/v1 Deployment."""
        if self.is_paused:
            return Health(status="Suspended", message="Deployment is paused")
        if self.generation > self.observed:
            message = "observed deployment generation less than desired generation"
            return Health(status="Progressing", message=f"Waiting for rollout to finish: {message}")
        if self.deadline_passed:
            return Health(
                status="Degraded", message=f'Deployment "{self.key[3]}" exceeded its progress deadline'
            )
        updated, total, available = len(self.current.active), len(self.active), self.available
        if updated < self.desired:
            message = f"{updated} out of {self.desired} new replicas have been updated..."
        elif total > updated:
            message = f"{total - updated} old replicas are pending termination..."
        elif available < updated:
            message = f"{available} of {updated} updated replicas are available..."
        else:
            return Health(status="Healthy")
        return Health(status="Progressing", message=f"Waiting for rollout to finish: {message}")

    def roll(self) -> None:
        """Take every step the rolling update allows now, as the Deployment controller does on each change."""
        if self.is_paused and self.old:
            return
        new, old = self.current, self.old
        for replica_set in old:
            for pod in replica_set.active:
                if not pod.is_ready:
                    self.terminate(pod, replica_set)
        for pod in new.active[self.desired :]:
            self.terminate(pod, new)
        self._fill(new)
        for replica_set in old:
            for pod in replica_set.active:
                if self.available > self.desired - self.desired // 4:
                    self.terminate(pod, replica_set)
        self._fill(new)

    def _fill(self, new: ReplicaSet) -> None:
        """Start new pods, as many as the surge leaves room for."""
        room = self.desired + math.ceil(self.desired / 4)
        while len(new.active) < self.desired and len(self.active) < room:
            self.create(new)

    def live(self) -> Json:
        """The Deployment as the cluster would return it, with the defaults of its API."""
        live = super().live()
        deadline = max(1, int(self.cluster.pace.progress_deadline.total_seconds()))
        live["spec"] = {
            "progressDeadlineSeconds": deadline,
            "revisionHistoryLimit": OLD_REPLICA_SETS,
        } | live["spec"]
        return live

    def figures(self) -> Json:
        """The numbers of its status, and its two conditions."""
        available, total = self.available, len(self.active)
        return {
            "replicas": total,
            "updatedReplicas": len(self.current.active),
            "readyReplicas": available,
            "availableReplicas": available,
            "unavailableReplicas": max(0, max(total, self.desired) - available),
            "conditions": self._conditions(available),
        }

    def _conditions(self, available: int) -> list[Json]:
        enough = available >= self.desired - self.desired // 4
        name = self.current.name
        if self.deadline_passed:
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
                "status": str(not self.deadline_passed),
                "reason": reason,
                "message": message,
            },
        ]


class _OneAtATime(Workload):
    """A workload that replaces a pod only when the others serve and the one before has gone."""

    def roll(self) -> None:
        """Fill free places with new pods; with all places filled and serving, free one that an old pod has."""
        new = self.current
        for pod in new.active[self.desired :]:
            self.terminate(pod, new)
        while len(self.pods) < self.desired:
            self.create(new)
        if len(self.pods) > self.desired:
            return
        candidates = [(pod, replica_set) for replica_set in self.old for pod in replica_set.active]
        broken = [found for found in candidates if not found[0].is_ready]
        if broken or (candidates and self.available == self.desired):
            self.terminate(*(broken or candidates)[-1])

    def forget(self, pod: Pod, replica_set: ReplicaSet) -> None:
        """Let go of a pod, and fill its place."""
        super().forget(pod, replica_set)
        self.roll()
        self.report()


class StatefulSet(_OneAtATime):
    """A StatefulSet: numbered pods, replaced from the highest number down."""

    @property
    def health(self) -> Health:
        """Its health in the words of gitops-engine's check; it is never Degraded."""
        if self.generation > self.observed:
            return Health(
                status="Progressing", message="Waiting for statefulset spec update to be observed..."
            )
        new, revision = len(self.current.active), self.current.name
        if self.available < self.desired:
            waiting = self.desired - self.available
            return Health(status="Progressing", message=f"Waiting for {waiting} pods to be ready...")
        what = "statefulset rolling update"
        if new < self.desired:
            return Health(
                status="Progressing",
                message=f"waiting for {what} to complete {new} pods at revision {revision}...",
            )
        return Health(status="Healthy", message=f"{what} complete {new} pods at revision {revision}...")

    def pod_name(self, replica_set: ReplicaSet, number: int) -> str:  # noqa: ARG002  a StatefulSet counts places
        """The name of the lowest free place."""
        taken = {pod.name for pod in self.pods}
        names = (f"{self.key[3]}-{place}" for place in range(len(taken) + 1))
        return next(name for name in names if name not in taken)

    def figures(self) -> Json:
        """The numbers of its status."""
        before = self.old[-1] if self.old and not self.is_complete else self.current
        return {
            "replicas": len(self.active),
            "updatedReplicas": len(self.current.active),
            "readyReplicas": self.available,
            "availableReplicas": self.available,
            "currentRevision": before.name,
            "updateRevision": self.current.name,
        }


class DaemonSet(_OneAtATime):
    """A DaemonSet: one pod on each node."""

    @property
    def desired(self) -> int:
        """One pod for each node."""
        return len(NODES)

    @property
    def health(self) -> Health:
        """Its health in the words of gitops-engine's check; it is never Degraded."""
        if self.generation > self.observed:
            message = "observed daemon set generation less than desired generation"
            return Health(status="Progressing", message=f"Waiting for rollout to finish: {message}")
        new, desired = len(self.current.active), self.desired
        begin = f'Waiting for daemon set "{self.key[3]}" rollout to finish:'
        if new < desired:
            message = f"{begin} {new} out of {desired} new pods have been updated..."
            return Health(status="Progressing", message=message)
        if self.available < desired:
            message = f"{begin} {self.available} of {desired} updated pods are available..."
            return Health(status="Progressing", message=message)
        return Health(status="Healthy")

    def figures(self) -> Json:
        """The numbers of its status."""
        return {
            "desiredNumberScheduled": self.desired,
            "currentNumberScheduled": len(self.active),
            "updatedNumberScheduled": len(self.current.active),
            "numberReady": self.available,
            "numberAvailable": self.available,
        }


KINDS: Mapping[str, type[Workload]] = {
    "Deployment": Deployment,
    "StatefulSet": StatefulSet,
    "DaemonSet": DaemonSet,
}
