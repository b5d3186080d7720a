"""What the simulated cluster really runs, and the line in which a page shows that beside what the API claims."""

from collections.abc import Mapping
from dataclasses import dataclass

from bot.playground.argocd.application import Application
from bot.playground.argocd.manifests import Json, Key
from bot.playground.argocd.objects import LiveObject
from bot.playground.argocd.workloads import workloads_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the simulated cluster really runs, whatever the API says about it.

    `versions` are the image tags of all pods that are not terminating; `health` is the workloads' present one;
    `revision` is the newest commit whose manifests the cluster was made, or found, equal to; for several sources it is
    the first one's.
    """

    versions: frozenset[str]
    all_ready: bool
    health: str
    revision: str | None

    def runs(self, version: str) -> bool:
        """Whether every pod is of that version, ready, and none is missing."""
        return self.all_ready and self.versions == {version}


def truth_of(application: Application, live: Mapping[Key, LiveObject]) -> Truth:
    """What the cluster really runs for an application now."""
    workloads = workloads_of(live)
    active = [pod for workload in workloads for pod in workload.active]
    wanted = sum(workload.desired for workload in workloads)
    prefix = f"{application.spec.image_repository}:"
    images = [image for pod in active for image in pod.images if image.startswith(prefix)]
    unhealthy = [workload.health.status for workload in workloads if workload.health.status != "Healthy"]
    return Truth(
        versions=frozenset(image.removeprefix(prefix).partition("@")[0] for image in images),
        all_ready=len(active) >= wanted and all(pod.is_ready for pod in active),
        health=unhealthy[0] if unhealthy else "Healthy" if workloads else "Missing",
        revision=next(iter(application.synced_revisions), None),
    )


def line_of(application: Application, live: Mapping[Key, LiveObject]) -> Json:
    """One line about an application, as a page shows it: what the API would say, beside the pods there are."""
    spec, status = application.spec, application.status
    workloads = workloads_of(live)
    ready = sum(pod.is_ready for workload in workloads for pod in workload.current.pods)
    state = application.operation_state or {}
    conditions = [condition["message"] for condition in status.get("conditions", [])]
    rollouts = [
        workload.health.message
        for workload in workloads
        if workload.health.message and workload.health.status != "Healthy"
    ]
    running = [state["message"]] if application.is_syncing and "message" in state else []
    return {
        "name": spec.name,
        "namespace": spec.destination_namespace,
        "sync": status["sync"]["status"],
        "health": status["health"].get("status", ""),
        "revision": next(iter(application.revisions), "")[:7],
        "version": ", ".join(sorted(truth_of(application, live).versions)),
        "pods": f"{ready}/{sum(workload.desired for workload in workloads)}",
        "message": next(iter([*running, *conditions, *rollouts]), ""),
    }
