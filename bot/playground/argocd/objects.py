"""Objects of the simulated cluster that have no life of their own, a Service for one."""

from bot.playground.argocd.manifests import Json, key_of
from bot.playground.argocd.pods import Health, stamp, uid
from bot.playground.argocd.timeline import Timeline


class LiveObject:
    """An object of the cluster."""

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
        return self.applied | {"metadata": metadata} | self.status()

    def status(self) -> Json:
        """Its `status`, below that name; empty for a kind without one."""
        if self.key[1] == "Ingress":
            return {"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.80"}]}}}
        return {"status": {"loadBalancer": {}}} if self.key[1] == "Service" else {}


def health_of(live: LiveObject | None) -> Json | None:
    """The health of one managed object, or None for a kind that has none."""
    if live is None:
        return {"status": "Missing"}
    return live.health.json() if live.health is not None else None
