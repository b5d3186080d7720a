"""The Kubernetes cluster of the simulation: every live object, and what is to happen to the coming rollouts."""

from collections.abc import Callable

from bot.playground.argocd.manifests import Json, Key, key_of
from bot.playground.argocd.objects import LiveObject
from bot.playground.argocd.timeline import Timeline
from bot.playground.argocd.workload_kinds import KINDS
from bot.playground.argocd.workloads import Pace, Workload


class Cluster:
    """Every live object, and who wants to hear that one changed."""

    def __init__(self, timeline: Timeline, pace: Pace, changed: Callable[[str], None]) -> None:
        self.timeline = timeline
        self.pace = pace
        self.changed = changed
        self._doomed: list[tuple[str | None, str]] = []
        self._flapping: set[str] = set()
        self._objects: dict[Key, LiveObject] = {}

    def doom(self, owner: str | None, trouble: str) -> None:
        """Let the pods of the next rollout get into trouble: of one owner's, or of whichever comes first."""
        self._doomed.append((owner, trouble))

    def takes_doom(self, owner: str) -> str | None:
        """The trouble that a rollout which begins now is to get into; asking uses it up."""
        for wanted in (owner, None):
            for doomed in self._doomed:
                if doomed[0] == wanted:
                    self._doomed.remove(doomed)
                    return doomed[1]
        return None

    @property
    def awaits_doom(self) -> bool:
        """Whether some rollout that has not begun yet is to crash."""
        return bool(self._doomed)

    def spare(self) -> None:
        """Let the coming rollouts go well after all."""
        self._doomed.clear()

    def flap(self, owner: str) -> None:
        """Let one pod of an owner stumble just after its next rollout."""
        self._flapping.add(owner)

    def takes_flap(self, owner: str) -> bool:
        """Whether a rollout that is complete now is to flap once; asking uses it up."""
        if owner not in self._flapping:
            return False
        self._flapping.discard(owner)
        return True

    def recover(self, owner: str) -> None:
        """Let the pods of an owner that are in trouble serve after all."""
        for live in self.owned(owner).values():
            if isinstance(live, Workload):
                live.recover()

    def owned(self, owner: str) -> dict[Key, LiveObject]:
        """The objects of one application."""
        return {key: live for key, live in self._objects.items() if live.owner == owner}

    def apply(self, manifest: Json, *, owner: str) -> str:
        """Create or change an object; the answer is kubectl's word for what happened."""
        key = key_of(manifest)
        live = self._objects.get(key)
        if live is None:
            kind = KINDS.get(key[1])
            made = (
                kind(self, manifest, owner=owner)
                if kind
                else LiveObject(self.timeline, manifest, owner=owner)
            )
            self._objects[key] = made
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
