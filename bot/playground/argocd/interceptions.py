"""What stands before Argo CD and answers in its place: proxies, login pages, redirects."""

from collections.abc import Mapping
from dataclasses import dataclass, field

PROXY_PAGE = (
    "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n"
    "<center><h1>503 Service Temporarily Unavailable</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interception:
    """One answer that does not come from Argo CD; `path` is a part of the paths it is for, all of them if empty."""

    status: int
    text: str = ""
    content_type: str = "text/html"
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = ""


def throttled(retry_after: str, *, path: str = "") -> Interception:
    """Too many requests; `retry_after` is a number of seconds or a date."""
    return Interception(
        status=429,
        text="Too Many Requests\n",
        content_type="text/plain",
        headers={"Retry-After": retry_after},
        path=path,
    )


def redirect(location: str, *, path: str = "") -> Interception:
    """What a TLS server says to plain HTTP, and what a proxy says to whoever has no session."""
    body = f'<a href="{location}">Temporary Redirect</a>.\n\n'
    return Interception(status=307, text=body, headers={"Location": location}, path=path)


def login_page(*, path: str = "") -> Interception:
    """The page of an identity provider, with the status of success."""
    return Interception(
        status=200, text="<!doctype html><html><title>Sign in</title><form></form></html>", path=path
    )


def plain_error(status: int, text: str, *, path: str = "") -> Interception:
    """An error that is no JSON."""
    return Interception(status=status, text=text, content_type="text/plain", path=path)
