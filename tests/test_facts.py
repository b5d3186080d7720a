"""What one look says of the image that an application runs."""

from __future__ import annotations

from typing import Any

import pytest
from rollout_cases import IMAGE, facts, operation, pod, syncing, workloads

from bot.core.facts import Workloads, image_doubt, running_version, split_image


@pytest.mark.parametrize(
    ("image", "name", "version"),
    [
        ("nginx", "docker.io/library/nginx", "latest"),
        ("nginx:1.29", "docker.io/library/nginx", "1.29"),
        ("acme/app:15", "docker.io/acme/app", "15"),
        ("ghcr.io/acme/app:15", "ghcr.io/acme/app", "15"),
        ("ghcr.io/acme/app:15@sha256:abc", "ghcr.io/acme/app", "15"),
        ("ghcr.io/acme/app@sha256:abc", "ghcr.io/acme/app", "sha256:abc"),
        ("registry:5000/acme/app", "registry:5000/acme/app", "latest"),
        ("localhost/app:15", "localhost/app", "15"),
    ],
)
def test_images_have_one_spelling(image: str, name: str, version: str) -> None:
    """Docker Hub's names are short, registries have ports, and a digest may stand beside the tag or alone."""
    assert split_image(image) == (name, version)


DOUBTS: dict[str, tuple[Workloads, str]] = {
    "every pod runs it": (workloads(pod(), pod()), ""),
    "pods that leave do not count": (workloads(pod(), pod("14", is_terminating=True)), ""),
    "pods of another image do not count": (workloads(pod(), pod(images=("redis:8",))), ""),
    "an application without pods is judged by its manifests": (workloads(), ""),
    "the manifests must hold it": (workloads(pod(), rendered="14"), "the manifests hold 14"),
    "the manifests may hold nothing of it": (
        Workloads(rendered_images=frozenset({"redis:8"}), pods=(pod(),)),
        f"the manifests hold no version of {IMAGE}",
    ),
    "an old pod beside the new one": (workloads(pod(), pod("14", name="old")), "pod old still runs 14"),
    "an old container beside the new one": (
        workloads(pod(images=(f"{IMAGE}:15", f"{IMAGE}:14"))),
        "pod pod-1 still runs 14",
    ),
    "each pod must be ready, and trouble goes first": (
        workloads(pod(name="young", is_ready=False), pod(is_ready=False, trouble="ErrImagePull")),
        "pod pod-1 is not ready: ErrImagePull",
    ),
}


@pytest.mark.parametrize(("found", "doubt"), DOUBTS.values(), ids=DOUBTS.keys())
def test_the_image_is_proved_or_the_doubt_is_named(found: Workloads, doubt: str) -> None:
    """Rendered, and in every pod that stays."""
    assert image_doubt(found, f"{IMAGE}:15") == doubt


def test_the_running_version_is_the_one_of_all_its_pods() -> None:
    """Synced, healthy, freshly compared, and one version in every pod."""
    assert running_version(facts(), IMAGE) == ("15", "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sync": "OutOfSync"}, "manual-app-prod is OutOfSync and Healthy"),
        ({"sync": "", "health": ""}, "manual-app-prod is not compared and of unknown health"),
        ({"errors": ("disk full",)}, "manual-app-prod has a problem: disk full"),
        ({"compares_spec": False}, "manual-app-prod has just changed and not been compared since"),
        ({"workloads": None}, "the pods of manual-app-prod could not be read"),
        ({"workloads": workloads()}, f"manual-app-prod runs no pod of {IMAGE}"),
        ({"workloads": workloads(pod(), pod("14"))}, "manual-app-prod runs 14 and 15"),
        ({"workloads": workloads(pod(), rendered="14")}, "manual-app-prod: the manifests hold 14"),
        ({"operation": operation(finished_at=facts().reconciled_at)}, "not been compared since"),
    ],
)
def test_without_proof_there_is_no_running_version_but_a_reason(changes: dict[str, Any], reason: str) -> None:
    """A gate that opens on the word of the environment before must not open on a guess."""
    version, said = running_version(facts(**changes), IMAGE)
    assert version is None
    assert reason in said


def test_a_sync_under_way_has_no_running_version() -> None:
    """What runs is about to change."""
    assert running_version(syncing(), IMAGE) == (None, "manual-app-prod is being synced")
