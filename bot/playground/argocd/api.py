"""The simulated Argo CD's API server: its paths, its rules of access, and its ways of saying no."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from multidict import MultiMapping

from bot.playground.argocd import live_views, requests, stream_api
from bot.playground.argocd.access import Account, reduced
from bot.playground.argocd.application import Application
from bot.playground.argocd.interceptions import PROXY_PAGE, Interception
from bot.playground.argocd.list_fields import chosen
from bot.playground.argocd.manifests import Json
from bot.playground.argocd.refusals import FORBIDDEN, INVALID, NOT_FOUND, UNKNOWN, Denied
from bot.playground.argocd.specs import CONTROL_PLANE, SimulatedApplication
from bot.playground.argocd.sync_requests import requested_operation
from bot.playground.argocd.watch import Watcher

if TYPE_CHECKING:
    from bot.playground.argocd.server import SimulatedArgoCD

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_RESOURCES = frozenset(
    (
        "applications",
        "applicationsets",
        "projects",
        "clusters",
        "repositories",
        "accounts",
        "logs",
        "exec",
        "extensions",
    )
)
_ACTIONS = frozenset(("get", "create", "update", "delete", "sync", "override", "action", "invoke"))
_INDEX_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Argo CD</title></head>'
    "<body><h1>Argo CD, simulated</h1><p>This simulation has Argo CD's API, not its user interface.</p></body></html>"
)
_VERSION = {
    "Version": "v3.5.1+2b1f0a5",
    "BuildDate": "2026-08-12T09:14:27Z",
    "GitTreeState": "clean",
    "GoVersion": "go1.25.3",
    "Compiler": "gc",
    "Platform": "linux/amd64",
}


class Api:
    """The HTTP side of one simulation."""

    def __init__(self, simulation: "SimulatedArgoCD", *, rootpath: str) -> None:
        self._simulation = simulation
        self._rootpath = rootpath

    def web_application(self) -> web.Application:
        """The server's routes; any other path below `/api` is unknown, and the rest is the user interface."""
        served = web.Application(middlewares=[self._front])
        root = self._rootpath
        one = f"{root}/api/v1/applications/{{name}}"
        reads: list[tuple[str, Callable[[web.Request], Awaitable[Any]]]] = [
            (f"{root}/api/version", self._version),
            (f"{root}/api/v1/session/userinfo", self._user_info),
            (f"{root}/api/v1/settings", self._settings),
            (f"{root}/api/v1/account/can-i/{{resource}}/{{action}}/{{subresource:.+}}", self._can_i),
            (f"{root}/api/v1/applicationsets/{{name}}", self._application_set),
            (f"{root}/api/v1/applications", self._list),
            (one, self._get),
            (f"{one}/resource-tree", self._resource_tree),
            (f"{one}/managed-resources", self._managed_resources),
            (f"{one}/resource", self._resource),
            (f"{one}/events", self._events),
            (f"{one}/syncwindows", self._sync_windows),
        ]
        for path, handler in reads:
            served.router.add_get(path, _as_json(handler), allow_head=False)
        served.router.add_post(f"{one}/sync", _as_json(self._sync))
        served.router.add_delete(f"{one}/operation", _as_json(self._terminate))
        for path in (f"{one}/logs", f"{one}/pods/{{pod}}/logs"):
            served.router.add_get(path, self._logs, allow_head=False)
        served.router.add_get(f"{root}/api/v1/stream/applications", self._watch, allow_head=False)
        for path in {"/healthz", f"{root}/healthz"}:
            served.router.add_get(path, self._healthz)
        return served

    @web.middleware
    async def _front(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """What stands before every handler: the proxy, the check of the content type, and the shape of errors."""
        simulation = self._simulation
        simulation.record(request.method, request.path, request.query)
        if simulation.down:
            return web.Response(status=503, text=PROXY_PAGE, content_type="text/html")
        intercepted = simulation.take_interception(request.path)
        if intercepted is not None:
            return _intercept(intercepted)
        is_api = request.path.startswith(f"{self._rootpath}/api/")
        if is_api and request.method != "GET" and request.headers.get("Content-Type") != "application/json":
            return web.Response(status=415, text="Invalid content type\n")
        simulation.tick()
        try:
            return await handler(request)
        except Denied as denied:
            return _json_response(denied.json(), status=denied.status)
        except web.HTTPNotFound:
            if is_api:
                return web.Response(status=404, text="Not Found\n")
            return web.Response(text=_INDEX_PAGE, content_type="text/html")
        except web.HTTPMethodNotAllowed:
            return web.Response(status=405, text="Method Not Allowed\n")

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _version(self, request: web.Request) -> Json:
        return _VERSION if self._is_logged_in(request) else {"Version": _VERSION["Version"]}

    async def _user_info(self, request: web.Request) -> Json:
        """Who the caller is; Go leaves `loggedIn` out when it is false."""
        if not self._is_logged_in(request):
            return {}
        return {"loggedIn": True, "username": self._caller(request).username, "iss": "argocd"}

    async def _settings(self, _request: web.Request) -> Json:
        settings: Json = {
            "url": self._simulation.url,
            "appLabelKey": "app.kubernetes.io/instance",
            "trackingMethod": "annotation",
            "controllerNamespace": CONTROL_PLANE,
        }
        if self._namespaces() != {CONTROL_PLANE}:
            settings["appsInAnyNamespaceEnabled"] = True
        return settings

    async def _can_i(self, request: web.Request) -> Json:
        """Whether the caller has a right."""
        account = self._caller(request)
        resource, action, subject = (
            request.match_info[part] for part in ("resource", "action", "subresource")
        )
        if resource not in _RESOURCES or action not in _ACTIONS:
            raise Denied(INVALID, f"{resource}/{action} is no resource and action of Argo CD")
        allowed = self._simulation.access.allows(account, resource, action, reduced(subject))
        return {"value": "yes" if allowed else "no"}

    async def _application_set(self, request: web.Request) -> Json:
        account, name = self._caller(request), request.match_info["name"]
        found = self._simulation.application_set(name)
        project = found.spec.project if found is not None else "default"
        self._simulation.access.check(account, "applicationsets", "get", f"{project}/{name}")
        namespace = request.query.get("appsetNamespace") or CONTROL_PLANE
        if found is None or found.spec.namespace != namespace:
            raise Denied(NOT_FOUND, f'applicationsets.argoproj.io "{name}" not found')
        return found.json()

    async def _list(self, request: web.Request) -> Json:
        """The applications the caller may see; what they may not see is left out without a word."""
        account = self._caller(request)
        listed = self._simulation.listed()
        fields = request.query.get("fields", "")
        items = [
            chosen(shown, fields) for spec, shown in listed if self._is_wanted(spec, account, request.query)
        ]
        newest = max((int(shown["metadata"]["resourceVersion"]) for _, shown in listed), default=0)
        return {"metadata": {"resourceVersion": str(newest)}, "items": items or None}

    async def _get(self, request: web.Request) -> Json:
        account = self._caller(request)
        if len(requests.projects_of(request.query)) > 1:
            text = "multiple projects specified - the get endpoint accepts either zero or one project"
            raise Denied(INVALID, text)
        application = self._find(request, account)
        if "refresh" in request.query:
            kind = "hard" if request.query["refresh"] == "hard" else "normal"
            await self._refresh(application, kind, deadline=requests.grpc_timeout(request))
        return self._simulation.shown(application)

    async def _refresh(self, application: Application, kind: str, *, deadline: float | None) -> None:
        """Set the annotation and wait until a reconcile removes it, whichever one that is."""
        removed = application.refreshed()
        self._simulation.refresh(application.spec.instance, kind)
        try:
            await asyncio.wait_for(removed, deadline)
        except TimeoutError:
            raise Denied(UNKNOWN, "application refresh deadline exceeded") from None

    async def _sync(self, request: web.Request) -> Json:
        """Queue an operation. A window refuses before the right to sync is looked at."""
        account, asked = self._caller(request), await requests.body(request)
        projects = {asked["project"]} if asked.get("project") else set()
        namespace = asked.get("appNamespace") or CONTROL_PLANE
        application = self._find_named(request.match_info["name"], namespace, projects, account, "get")
        simulation, spec = self._simulation, application.spec
        if not simulation.world.can_sync(spec, manual=True):
            raise Denied(FORBIDDEN, "cannot sync: blocked by sync window")
        simulation.access.check(account, "applications", "sync", spec.rbac_name)
        resolve = simulation.resolve
        operation = requested_operation(application, asked, username=account.username, resolve=resolve)
        simulation.queue(application, operation)
        return simulation.shown(application)

    async def _terminate(self, request: web.Request) -> Json:
        application = self._find(request, self._caller(request), "sync")
        if application.operation is None or application.operation_state is None:
            raise Denied(INVALID, "Unable to terminate operation. No operation is in progress")
        self._simulation.terminate(application.spec.instance)
        return {}

    async def _resource_tree(self, request: web.Request) -> Json:
        application = self._find(request, self._caller(request))
        self._check_cache(application, "resource tree")
        return live_views.resource_tree(self._simulation.live(application.spec.instance))

    async def _managed_resources(self, request: web.Request) -> Json:
        application = self._find(request, self._caller(request))
        self._check_cache(application, "managed resources")
        managed = live_views.managed_resources(application)
        filters = [
            (field, request.query[field])
            for field in ("group", "kind", "namespace", "name")
            if field in request.query
        ]
        items = [
            item for item in managed["items"] if all(item.get(field, "") == value for field, value in filters)
        ]
        return {"items": items} if items else {}

    async def _resource(self, request: web.Request) -> Json:
        application = self._find(request, self._caller(request))
        group, kind, namespace, name = (
            request.query.get(part, "") for part in ("group", "kind", "namespace", "resourceName")
        )
        manifest = live_views.live_manifest(
            self._simulation.live(application.spec.instance), (group, kind, namespace, name)
        )
        if manifest is None:
            raise Denied(
                INVALID, f"{kind} {group} {name} not found as part of application {application.spec.name}"
            )
        return {"manifest": json.dumps(manifest)}

    async def _events(self, request: web.Request) -> Json:
        application = self._find(request, self._caller(request))
        return live_views.events(
            application,
            self._simulation.live(application.spec.instance),
            resource_name=request.query.get("resourceName", ""),
            resource_uid=request.query.get("resourceUID", ""),
        )

    async def _sync_windows(self, request: web.Request) -> Json:
        """The windows of an application; `canSync` is the answer for a sync by hand."""
        spec, world = self._find(request, self._caller(request)).spec, self._simulation.world
        assigned = world.assigned(spec)
        now = world.timeline.now
        shown = {
            "activeWindows": [window.json() for window in assigned if window.is_active(now)],
            "assignedWindows": [window.json() for window in assigned],
            "canSync": world.can_sync(spec, manual=True),
        }
        return {name: value for name, value in shown.items() if value}

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        """The lines of a pod's log; reading them is a right of its own."""
        account = self._caller(request)
        application = self._find(request, account)
        self._simulation.access.check(account, "logs", "get", application.spec.rbac_name)
        pod = request.match_info.get("pod") or request.query.get("podName", "")
        lines = live_views.log_lines(
            self._simulation.live(application.spec.instance),
            pod,
            previous=request.query.get("previous") == "true",
            last=int(request.query.get("tailLines", 0)),
        )
        return await stream_api.serve_lines(request, lines)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """Send each write of the applications asked for; who may see none of them hears nothing at all."""
        account, query = self._caller(request), request.query
        oldest = query.get("resourceVersion", "")
        watcher = Watcher(
            wants=lambda application: self._is_wanted(application.spec, account, query),
            oldest=int(oldest) if oldest.isdecimal() else 0,
        )
        present = self._simulation.known() if query.get("name") or not oldest else ()
        self._simulation.streams.open(watcher, list(present))
        return await stream_api.serve(request, self._simulation.streams, watcher)

    def _check_cache(self, application: Application, what: str) -> None:
        """Refuse what the cache has lost, and compare again so that it is there the next time."""
        if not application.is_cached:
            self._simulation.refresh(application.spec.instance, "normal")
            raise Denied(UNKNOWN, f"error getting cached app {what}: cache: key is missing")

    def _caller(self, request: web.Request) -> Account:
        return self._simulation.access.caller(requests.token_of(request))

    def _is_logged_in(self, request: web.Request) -> bool:
        try:
            return self._caller(request).is_logged_in
        except Denied:
            return False

    def _namespaces(self) -> set[str]:
        return {CONTROL_PLANE, *(application.spec.namespace for application in self._simulation.known())}

    def _find(self, request: web.Request, account: Account, action: str = "get") -> Application:
        namespace = request.query.get("appNamespace") or CONTROL_PLANE
        projects = requests.projects_of(request.query)
        return self._find_named(request.match_info["name"], namespace, projects, account, action)

    def _find_named(
        self, name: str, namespace: str, projects: set[str], account: Account, action: str
    ) -> Application:
        """The application of a name, by Argo CD's rules.

        Without a project, missing and forbidden look alike, so that names cannot be probed. With one, the right is
        checked first and a missing application, or one of another project, is 404.
        """
        access = self._simulation.access
        if namespace not in self._namespaces():
            raise Denied(FORBIDDEN, f"namespace '{namespace}' is not permitted")
        middle = "" if namespace == CONTROL_PLANE else f"{namespace}/"
        for project in projects:
            if not access.allows(account, "applications", action, f"{project}/{middle}{name}"):
                raise Denied(FORBIDDEN, "permission denied")
        found = self._simulation.find(name, namespace)
        allowed = found is not None and access.allows(account, "applications", action, found.spec.rbac_name)
        if found is None or not allowed or (projects and found.spec.project not in projects):
            if projects:
                raise Denied(NOT_FOUND, f'applications.argoproj.io "{name}" not found')
            raise Denied(FORBIDDEN, "permission denied")
        return found

    def _is_wanted(self, spec: SimulatedApplication, account: Account, query: MultiMapping[str]) -> bool:
        """Whether a list or a stream with these filters shows an application to an account."""
        projects = requests.projects_of(query)
        return (
            self._simulation.access.sees(account, spec)
            and query.get("name") in {None, "", spec.name}
            and query.get("repo") in {None, "", *(source.repo_url for source in spec.all_sources)}
            and query.get("appNamespace") in {None, "", spec.namespace}
            and (not projects or spec.project in projects)
            and requests.selects(query.get("selector", ""), dict(spec.labels))
        )


def _as_json(handler: Callable[[web.Request], Awaitable[Json]]) -> _Handler:
    async def respond(request: web.Request) -> web.StreamResponse:
        return _json_response(await handler(request))

    return respond


def _json_response(body: Json, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")


def _intercept(answer: Interception) -> web.Response:
    return web.Response(
        status=answer.status,
        text=answer.text,
        content_type=answer.content_type,
        headers=dict(answer.headers),
    )
