"""What Argo CD's API answers beside the Application itself, as far as the bot reads it."""

from __future__ import annotations

from pydantic import Field

from bot.integrations.argocd_objects import Info, Object


class Managed(Object):
    """One managed resource; its states are JSON documents in strings."""

    target_state: str = "null"


class ManagedResources(Object):
    """The answer of `managed-resources`."""

    items: tuple[Managed, ...] = ()


class Reference(Object):
    """A node's owner."""

    kind: str = ""
    uid: str = ""


class Node(Object):
    """One object in the cluster, managed or made by a managed one."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    parent_refs: tuple[Reference, ...] = ()
    info: tuple[Info, ...] = ()
    images: tuple[str, ...] = ()
    created_at: str = ""

    def told(self, name: str) -> str:
        """One item of its info, `Status Reason` for one; empty where there is none."""
        return next((item.value for item in self.info if item.name == name), "")

    @property
    def age(self) -> tuple[int, str]:
        """Sorts ReplicaSets from old to new: by `Rev:7`, else by when they were made."""
        number = self.told("Revision").removeprefix("Rev:")
        return int(number) if number.isdecimal() else 0, self.created_at


class Tree(Object):
    """The answer of `resource-tree`."""

    nodes: tuple[Node, ...] = ()


class Live(Object):
    """The answer of `resource`: one object as it is in the cluster, a JSON document in a string."""

    manifest: str = "null"


class Container(Object):
    """A container as a pod's specification has it."""

    name: str = ""
    image: str = ""


class ContainerStatus(Object):
    """A container as the kubelet runs it."""

    name: str = ""
    image_id: str = Field(default="", alias="imageID")


class PodSpec(Object):
    """What a pod should run."""

    containers: tuple[Container, ...] = ()


class PodStatus(Object):
    """What a pod runs."""

    container_statuses: tuple[ContainerStatus, ...] = ()


class LivePod(Object):
    """Kubernetes' Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Window(Object):
    """A sync window: `allow` or `deny`, from each time of its cron schedule on, for so long."""

    kind: str = ""
    schedule: str = ""
    duration: str = ""
    time_zone: str = ""


class Windows(Object):
    """The answer of `syncwindows`."""

    active_windows: tuple[Window, ...] = ()
    assigned_windows: tuple[Window, ...] = ()


class Strategy(Object):
    """How an ApplicationSet brings changes to its applications."""

    type: str = ""


class ApplicationSetSpec(Object):
    """What an ApplicationSet is to do."""

    strategy: Strategy = Strategy()


class Step(Object):
    """How far an ApplicationSet is with one of its applications."""

    application: str = ""
    status: str = ""
    step: str = ""


class ApplicationSetStatus(Object):
    """How far an ApplicationSet is."""

    application_status: tuple[Step, ...] = ()


class ApplicationSet(Object):
    """Argo CD's ApplicationSet."""

    spec: ApplicationSetSpec
    status: ApplicationSetStatus = ApplicationSetStatus()


class CanI(Object):
    """The answer of `can-i`."""

    value: str


class Version(Object):
    """The answer of `/api/version`, the one with capital keys."""

    version: str = Field(alias="Version")


class UserInfo(Object):
    """Whom Argo CD takes the caller for."""

    logged_in: bool = False
    username: str = ""


class LogLine(Object):
    """One line that a container wrote; the last one of an answer is empty and says so."""

    content: str = ""
    last: bool = False


class LogEntry(Object):
    """One event of the answer of `logs`."""

    result: LogLine = LogLine()
