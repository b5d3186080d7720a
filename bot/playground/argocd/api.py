"""The simulated Argo CD's API server: its paths, its rules of access, and its ways of saying no."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from bot.playground.argocd import live_views
from bot.playground.argocd.application import CONTROL_PLANE, Application
from bot.playground.argocd.manifests import Json

if TYPE_CHECKING:
    from bot.playground.argocd.server import SimulatedArgoCD

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_INVALID, _NOT_FOUND, _FORBIDDEN, _UNKNOWN, _UNAUTHENTICATED = 3, 5, 7, 2, 16
_STATUS = {_INVALID: 400, _NOT_FOUND: 404, _FORBIDDEN: 403, _UNKNOWN: 500, _UNAUTHENTICATED: 401}
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
_PROXY_PAGE = (
    "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n"
    "<center><h1>503 Service Temporarily Unavailable</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
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


class Denied(Exception):
    """The API refuses, with a gRPC code and a message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """The HTTP side of one simulation."""

    def __init__(self, simulation: "SimulatedArgoCD") -> None:
        self._simulation = simulation

    def web_application(self) -> web.Application:
        """The server's routes; any other path below `/api` is unknown, and the rest is the user interface."""
        served = web.Application(middlewares=[self._front])
        one = "/api/v1/applications/{name}"
        routes: list[tuple[str, Callable[[web.Request], Awaitable[Any]]]] = [
            ("/api/version", self._version),
            ("/api/v1/session/userinfo", self._user_info),
            ("/api/v1/settings", self._settings),
            ("/api/v1/account/can-i/{resource}/{action}/{subresource:.+}", self._can_i),
            ("/api/v1/applications", self._list),
            (one, self._get),
            (f"{one}/resource-tree", self._resource_tree),
            (f"{one}/managed-resources", self._managed_resources),
            (f"{one}/resource", self._resource),
            (f"{one}/events", self._events),
            (f"{one}/syncwindows", self._sync_windows),
        ]
        for path, handler in routes:
            served.router.add_get(path, _as_json(handler), allow_head=False)
        served.router.add_get("/healthz", self._healthz)
        return served

    @web.middleware
    async def _front(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """What stands before every handler: the proxy, the check of the content type, and the shape of errors."""
        simulation = self._simulation
        simulation.record(request.method, request.path, request.query)
        if simulation.down:
            return web.Response(status=503, text=_PROXY_PAGE, content_type="text/html")
        is_api = request.path.startswith("/api/")
        if is_api and request.method != "GET" and request.headers.get("Content-Type") != "application/json":
            return web.Response(status=415, text="Invalid content type\n")
        simulation.tick()
        try:
            return await handler(request)
        except Denied as denied:
            body = {"error": str(denied), "code": denied.code, "message": str(denied)}
            return _json_response(body, status=_STATUS[denied.code])
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
        return {"loggedIn": True, "username": "promote-bot", "iss": "argocd"}

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
        """Whether a right is there: the account may read the applications of its projects, and nothing more."""
        self._check_session(request)
        resource, action, subject = (
            request.match_info[part] for part in ("resource", "action", "subresource")
        )
        if resource not in _RESOURCES or action not in _ACTIONS:
            raise Denied(_INVALID, f"{resource}/{action} is no resource and action of Argo CD")
        project, _, name = subject.partition("/")
        reads = (resource, action) == ("applications", "get") and project in self._projects()
        return {
            "value": "yes" if reads and name.rpartition("/")[2] not in self._simulation.forbidden else "no"
        }

    async def _list(self, request: web.Request) -> Json:
        """The applications the caller may see; what they may not see is left out without a word."""
        self._check_session(request)
        wanted = [app for app in self._simulation.known() if self._is_listed(app, request)]
        items = [app.listed() for app in wanted]
        newest = max((app.version for app in self._simulation.known()), default=0)
        return {"metadata": {"resourceVersion": str(newest)}, "items": items or None}

    async def _get(self, request: web.Request) -> Json:
        self._check_session(request)
        if len(_projects_of(request)) > 1:
            text = "multiple projects specified - the get endpoint accepts either zero or one project"
            raise Denied(_INVALID, text)
        application = self._find(request)
        if "refresh" in request.query:
            kind = "hard" if request.query["refresh"] == "hard" else "normal"
            await self._refresh(application, kind, deadline=_grpc_timeout(request))
        return application.shown(self._simulation.live(application.spec.name))

    async def _refresh(self, application: Application, kind: str, *, deadline: float | None) -> None:
        """Set the annotation and wait until a reconcile removes it, whichever one that is."""
        removed = application.refreshed()
        self._simulation.refresh(application.spec.name, kind)
        try:
            await asyncio.wait_for(removed, deadline)
        except TimeoutError:
            raise Denied(_UNKNOWN, "application refresh deadline exceeded") from None

    async def _resource_tree(self, request: web.Request) -> Json:
        self._check_session(request)
        return live_views.resource_tree(self._simulation.live(self._find(request).spec.name))

    async def _managed_resources(self, request: web.Request) -> Json:
        self._check_session(request)
        managed = live_views.managed_resources(self._find(request))
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
        self._check_session(request)
        application = self._find(request)
        group, kind, namespace, name = (
            request.query.get(part, "") for part in ("group", "kind", "namespace", "resourceName")
        )
        manifest = live_views.live_manifest(
            self._simulation.live(application.spec.name), (group, kind, namespace, name)
        )
        if manifest is None:
            raise Denied(
                _INVALID, f"{kind} {group} {name} not found as part of application {application.spec.name}"
            )
        return {"manifest": json.dumps(manifest)}

    async def _events(self, request: web.Request) -> Json:
        self._check_session(request)
        application = self._find(request)
        return live_views.events(
            application,
            self._simulation.live(application.spec.name),
            resource_name=request.query.get("resourceName", ""),
            resource_uid=request.query.get("resourceUID", ""),
        )

    async def _sync_windows(self, request: web.Request) -> Json:
        self._check_session(request)
        self._find(request)
        return {"canSync": True}

    def _is_logged_in(self, request: web.Request) -> bool:
        return _token_of(request) == self._simulation.token and not self._simulation.token_expired

    def _check_session(self, request: web.Request) -> None:
        token = _token_of(request)
        if token is None:
            raise Denied(_UNAUTHENTICATED, "no session information")
        if token != self._simulation.token:
            raise Denied(
                _UNAUTHENTICATED, "invalid session: token signature is invalid: signature is invalid"
            )
        if self._simulation.token_expired:
            raise Denied(_UNAUTHENTICATED, "invalid session: token has invalid claims: token is expired")

    def _projects(self) -> set[str]:
        return {application.spec.project for application in self._simulation.known()}

    def _namespaces(self) -> set[str]:
        return {CONTROL_PLANE, *(application.spec.namespace for application in self._simulation.known())}

    def _find(self, request: web.Request) -> Application:
        """The application a path names, by Argo CD's rules.

        Without a project, missing and forbidden look alike, so that names cannot be probed. With one, the right is
        checked first and a missing application, or one of another project, is 404.
        """
        name, projects = request.match_info["name"], _projects_of(request)
        namespace = request.query.get("appNamespace") or CONTROL_PLANE
        if namespace not in self._namespaces():
            raise Denied(_FORBIDDEN, f"namespace '{namespace}' is not permitted")
        if name in self._simulation.forbidden or not self._projects().issuperset(projects):
            raise Denied(_FORBIDDEN, "permission denied")
        found = self._simulation.find(name, namespace)
        if not projects and found is None:
            raise Denied(_FORBIDDEN, "permission denied")
        if found is None or (projects and found.spec.project not in projects):
            raise Denied(_NOT_FOUND, f'applications.argoproj.io "{name}" not found')
        return found

    def _is_listed(self, application: Application, request: web.Request) -> bool:
        spec, query, projects = application.spec, request.query, _projects_of(request)
        return (
            spec.name not in self._simulation.forbidden
            and query.get("name") in {None, "", spec.name}
            and query.get("repo") in {None, "", spec.repo_url}
            and query.get("appNamespace") in {None, "", spec.namespace}
            and (not projects or spec.project in projects)
            and _selects(query.get("selector", ""), dict(spec.labels))
        )


def _as_json(handler: Callable[[web.Request], Awaitable[Json]]) -> _Handler:
    async def respond(request: web.Request) -> web.StreamResponse:
        return _json_response(await handler(request))

    return respond


def _json_response(body: Json, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")


def _token_of(request: web.Request) -> str | None:
    """The caller's token; one that does not look like a JWT is none."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    token = bearer if scheme == "Bearer" else request.cookies.get("argocd.token", "")
    return token if token.count(".") == 2 else None


def _projects_of(request: web.Request) -> set[str]:
    return {
        project for key in ("project", "projects") for project in request.query.getall(key, []) if project
    }


def _grpc_timeout(request: web.Request) -> float | None:
    match = re.fullmatch(r"(\d+)([HMSm])", request.headers.get("Grpc-Timeout", ""))
    return int(match[1]) * {"H": 3600, "M": 60, "S": 1, "m": 0.001}[match[2]] if match else None


def _selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether a label selector chooses an object with these labels."""
    for requirement in re.split(r",(?![^(]*\))", selector):
        match = re.fullmatch(
            r"\s*(!?)([\w./-]+)\s*(?:(==?|!=|\bin\b|\bnotin\b)\s*\(?([^()]*)\)?)?\s*", requirement
        )
        if not requirement.strip():
            continue
        if match is None:
            raise Denied(_INVALID, f"error parsing the selector: unable to parse requirement: {requirement}")
        absent, name, operator, text = match.groups()
        values = {value.strip() for value in (text or "").split(",")}
        chosen = labels.get(name) in values if operator else name in labels
        if chosen == (bool(absent) or operator in {"!=", "notin"}):
            return False
    return True
