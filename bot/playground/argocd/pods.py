"""Pods and ReplicaSets of the simulated cluster, and the small things every object of it needs."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from bot.playground.argocd.manifests import Json, images_of

CRASHING = "CrashLoopBackOff"
NO_IMAGE = "ImagePullBackOff"
OUT_OF_MEMORY = "OOMKilled"
TROUBLES = frozenset((CRASHING, NO_IMAGE, OUT_OF_MEMORY))
"""What a pod's status can say that never becomes ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Health as gitops-engine words it."""

    status: str
    message: str = ""

    def json(self) -> Json:
        """The shape of a `HealthStatus`."""
        return {"status": self.status, **({"message": self.message} if self.message else {})}


@dataclass(slots=True, kw_only=True, eq=False)
class Pod:
    """One pod; `reason` is what `kubectl get pods` shows as its status."""

    name: str
    uid: str
    template: Json
    created_at: datetime
    reason: str = "ContainerCreating"
    restarts: int = 0
    node: str = "node-1"

    @property
    def is_ready(self) -> bool:
        """Whether its containers serve."""
        return self.reason == "Running"

    @property
    def is_terminating(self) -> bool:
        """Whether it was told to go and is not gone yet."""
        return self.reason == "Terminating"

    @property
    def images(self) -> list[str]:
        """The images of its containers, as the template writes them."""
        return images_of({"spec": {"template": self.template}})

    @property
    def trouble(self) -> str:
        """The kubelet's words for what is wrong with it."""
        if self.reason == NO_IMAGE:
            return f'Back-off pulling image "{self.images[0]}"'
        return f"back-off 10s restarting failed container=app pod={self.name}"

    @property
    def health(self) -> Health:
        """How gitops-engine judges it."""
        if self.reason in TROUBLES:
            return Health(status="Degraded", message=self.trouble)
        return Health(status="Healthy" if self.is_ready else "Progressing")


@dataclass(slots=True, kw_only=True, eq=False)
class ReplicaSet:
    """The pods of one pod template; `doom` is the trouble they all get into, if they are to get into any."""

    name: str
    uid: str
    template: Json
    revision: int
    created_at: datetime
    doom: str | None = None
    pods: list[Pod] = field(default_factory=list)

    @property
    def active(self) -> list[Pod]:
        """Its pods that are not terminating: the ones Kubernetes counts."""
        return [pod for pod in self.pods if not pod.is_terminating]


def stamp(at: datetime) -> str:
    """A time as Kubernetes writes it: UTC, cut to the second."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def image_id(image: str) -> str:
    """What a node reports as the digest of an image: made up, but the same for the same image."""
    repository = image.partition("@")[0].rpartition(":")[0] or image
    return f"{repository}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def digest(value: object) -> str:
    """A hash of any JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def uid(name: str, at: datetime) -> str:
    """The uid of an object made then: another life of the same name has another one."""
    return str(uuid5(NAMESPACE_URL, f"{name} {at.isoformat()}"))
