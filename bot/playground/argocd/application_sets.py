"""ApplicationSets: who owns generated applications, and the rolling sync that starts their operations step by step."""

import json
from collections.abc import Callable
from uuid import NAMESPACE_URL, uuid5

from bot.playground.argocd.application import Application
from bot.playground.argocd.manifests import Json
from bot.playground.argocd.pods import stamp
from bot.playground.argocd.specs import SimulatedApplicationSet
from bot.playground.argocd.timeline import Timeline

CONTROLLER = "applicationset-controller"
_WAITING = "Application has pending changes, setting status to Waiting"
_PENDING = "Application moved to Pending status, watching for the Application resource to start Progressing"
_PROGRESSING = "Application resource became Progressing, updating status from Pending to Progressing"
_HEALTHY = "Application resource became Healthy, updating status from Progressing to Healthy"


class ApplicationSet:
    """One ApplicationSet with the controller that looks after its applications.

    Args:
        spec: what it is.
        members: its applications at the moment.
        queue: starts an operation of an application.
        timeline: when things happen.
    """

    def __init__(
        self,
        spec: SimulatedApplicationSet,
        *,
        members: Callable[[], list[Application]],
        queue: Callable[[Application, Json], None],
        timeline: Timeline,
    ) -> None:
        self.spec = spec
        self._members = members
        self._queue = queue
        self._timeline = timeline
        self._created_at = timeline.now
        self._statuses: dict[str, Json] = {}

    def look(self) -> None:
        """Move each application on, in the order of the steps; a step begins when the one before is healthy."""
        members = {application.spec.name: application for application in self._members()}
        is_enabled = True
        for number, names in enumerate(self.spec.steps, start=1):
            for application in (members[name] for name in names if name in members):
                self._move(application, str(number), is_enabled=is_enabled)
            is_enabled = is_enabled and all(self._is_healthy(name) for name in names if name in members)

    def json(self) -> Json:
        """The object as the API shows it."""
        spec = self.spec
        statuses = [self._statuses[name] for name in sorted(self._statuses)]
        steps = [
            {"matchExpressions": [{"key": "name", "operator": "In", "values": list(names)}]}
            for names in spec.steps
        ]
        strategy = {"strategy": {"type": "RollingSync", "rollingSync": {"steps": steps}}} if steps else {}
        names = sorted(application.spec.name for application in self._members())
        template = {
            "metadata": {"name": "{{.name}}"},
            "spec": {"project": spec.project, "destination": {}, "syncPolicy": {"automated": {}}},
        }
        return {
            "metadata": {
                "name": spec.name,
                "namespace": spec.namespace,
                "uid": str(uuid5(NAMESPACE_URL, f"ApplicationSet {spec.name}")),
                "creationTimestamp": stamp(self._created_at),
            },
            "spec": {
                "goTemplate": True,
                "generators": [{"list": {"elementsYaml": json.dumps([{"name": name} for name in names])}}],
                "template": template,
                **strategy,
            },
            "status": {"applicationStatus": statuses} if statuses else {},
        }

    def _is_healthy(self, name: str) -> bool:
        return bool(self._statuses[name]["status"] == "Healthy")

    def _move(self, application: Application, step: str, *, is_enabled: bool) -> None:
        """Take an application as far as it can go now."""
        name, is_syncing = application.spec.name, application.is_syncing
        sync, health = application.status["sync"]["status"], application.status["health"].get("status")
        is_settled = (sync, health) == ("Synced", "Healthy") and not is_syncing
        if name not in self._statuses:
            self._set(application, step, "Healthy", _HEALTHY)
        known = self._statuses[name]["status"]
        if known == "Healthy" and sync == "OutOfSync" and not is_syncing:
            self._set(application, step, "Waiting", _WAITING)
        elif known == "Pending" and is_syncing:
            self._set(application, step, "Progressing", _PROGRESSING)
        elif known == "Progressing" and is_settled:
            self._set(application, step, "Healthy", _HEALTHY)
        if self._statuses[name]["status"] == "Waiting" and is_enabled and not is_syncing:
            self._set(application, step, "Pending", _PENDING)
            self._queue(application, _operation(application))

    def _set(self, application: Application, step: str, status: str, message: str) -> None:
        self._statuses[application.spec.name] = {
            "application": application.spec.name,
            "status": status,
            "step": step,
            "message": message,
            "targetRevisions": list(application.revisions),
            "lastTransitionTime": stamp(self._timeline.now),
        }


def _operation(application: Application) -> Json:
    """What the controller asks for: a sync to wherever the branch is when it begins."""
    reason = "ApplicationSet RollingSync triggered a sync of this Application resource"
    return {
        "sync": {"prune": True},
        "initiatedBy": {"username": CONTROLLER, "automated": True},
        "info": [{"name": "Reason", "value": reason}],
        "retry": application.spec.retry,
    }
