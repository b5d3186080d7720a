"""What the tests of the simulated Argo CD share: a stage with a clock to move, and the check against the OpenAPI file."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from argocd_door import TOKEN, wait_until

from bot.playground.argocd.server import SimulatedApplication, SimulatedArgoCD, Timings
from bot.playground.repository import create_repository, head

PROD = "manual-app-prod"
REPO_URL = "https://git.acme.example/team/manual-app-helm.git"
APPLICATIONS = [
    SimulatedApplication(
        name=f"manual-app-{environment}",
        destination_namespace=environment,
        values_file=f"values-{environment}.yaml",
        repo_url=REPO_URL,
        labels={"env": environment},
    )
    for environment in ("dev", "stage", "prod")
]
SCHEMAS = json.loads((Path(__file__).parent / "data" / "argocd-swagger.json").read_text())["definitions"]
INLINED_IN_NODES = {"group", "version", "kind", "namespace", "name", "uid"}
GO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def misfits(value: Any, schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """Every place where a JSON value does not fit its OpenAPI schema; unknown properties do not fit."""
    name = schema.get("$ref", "").rpartition("/")[2]
    schema = SCHEMAS[name] if name else schema
    kind = schema.get("type")
    if name == "v1Time":
        if not (isinstance(value, str) and GO_TIME.fullmatch(value)):
            yield f"{at}: {value!r} is no time as Go writes it"
    elif kind == "array":
        if not isinstance(value, list):
            yield f"{at}: {value!r} is no array"
        else:
            for place, item in enumerate(value):
                yield from misfits(item, schema["items"], f"{at}[{place}]")
    elif kind == "object":
        yield from _object_misfits(value, schema, name, at)
    elif not isinstance(value, {"string": str, "boolean": bool, "integer": int, "number": float}[kind]):
        yield f"{at}: {value!r} is no {kind}"
    elif kind == "integer" and isinstance(value, bool):
        yield f"{at}: {value!r} is no integer"


def _object_misfits(value: Any, schema: dict[str, Any], name: str, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: {value!r} is no object"
        return
    properties = schema.get("properties", {})
    for key, item in value.items():
        if name == "v1alpha1ResourceNode" and key in INLINED_IN_NODES:
            continue
        if key in properties:
            yield from misfits(item, properties[key], f"{at}.{key}")
        elif "additionalProperties" in schema:
            yield from misfits(item, schema["additionalProperties"], f"{at}.{key}")
        else:
            yield f"{at}.{key}: {name} has no such property"


def fitting(value: Any, schema: str) -> Any:
    """The value, once it is known to fit the schema of that name."""
    found = list(misfits(value, {"$ref": f"#/definitions/{schema}"}))
    assert not found, found
    return value


class Bench:
    """One simulation with its repository, a client, and the clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = datetime(2026, 8, 24, 9, 0, 0, tzinfo=UTC)
        self.repository = create_repository(folder)
        self.argo = self.simulate(APPLICATIONS)
        self.client = httpx.AsyncClient()
        self._git("clone", "--quiet", str(self.repository), "work", at=folder)

    def simulate(self, applications: list[SimulatedApplication], **timings: timedelta) -> SimulatedArgoCD:
        """A simulation over the bench's repository and clock, not started yet."""
        return SimulatedArgoCD(
            repository=self.repository,
            token=TOKEN,
            applications=applications,
            timings=Timings(**timings),
            now=lambda: self.now,
        )

    async def restart(self, argo: SimulatedArgoCD) -> None:
        """Put another simulation in the place of the present one."""
        await self.argo.stop()
        self.argo = argo
        await argo.start(background=False)

    def passes(self, seconds: float) -> None:
        """Let time pass in the simulation."""
        self.now += timedelta(seconds=seconds)
        self.argo.tick()

    def commit(self, path: str, old: str, new: str, message: str = "Change a file") -> str:
        """Replace a text in a file on `main`, push, and return the revision."""
        file = self.folder / "work" / path
        before = file.read_text()
        assert old in before
        file.write_text(before.replace(old, new))
        self._git("commit", "--quiet", "--all", "-m", message)
        self._git("push", "--quiet", "origin", "HEAD:main")
        return head(self.repository) or ""

    def promote(self, version: str, *, old: str = "14", environment: str = "prod") -> str:
        """Commit another version for an environment."""
        return self.commit(
            f"values-{environment}.yaml", f'tag: "{old}"', f'tag: "{version}"', f"Promote {version}"
        )

    async def call(self, path: str, *, headers: dict[str, str] | None = None, **query: str) -> httpx.Response:
        """GET a path below `/api/v1` with the token."""
        headers = {"Authorization": f"Bearer {TOKEN}"} | (headers or {})
        return await self.client.get(f"{self.argo.url}/api/v1/{path}", params=query, headers=headers)

    async def application(self, name: str = PROD, **query: str) -> dict[str, Any]:
        """GET one application, checked against its schema."""
        answer = await self.call(f"applications/{name}", project="default", **query)
        assert answer.status_code == 200, answer.text
        return fitting(answer.json(), "v1alpha1Application")

    async def refreshing(self, name: str = PROD, kind: str = "normal") -> "asyncio.Task[dict[str, Any]]":
        """Ask for a refresh and return once the server has begun to wait for it."""
        before = len(self.argo.requests)
        task = asyncio.create_task(self.application(name, refresh=kind))
        await wait_until(lambda: len(self.argo.requests) > before, "the refresh arrives")
        return task

    async def refresh(self, name: str = PROD, kind: str = "normal") -> dict[str, Any]:
        """Refresh and let the reconcile end."""
        task = await self.refreshing(name, kind)
        self.passes(0.4)
        return await task

    async def deploy(self, version: str, *, old: str = "14") -> str:
        """Promote a version in prod and let everything settle."""
        revision = self.promote(version, old=old)
        await self.refresh()
        self.passes(15)
        return revision

    def _git(self, *arguments: str, at: Path | None = None) -> None:
        who = ("-c", "user.name=Sam Okafor", "-c", "user.email=sam@acme.example")
        subprocess.run(["git", *who, *arguments], cwd=at or self.folder / "work", check=True)
