"""Who may do what: accounts with their tokens and rights, as Argo CD's RBAC checks them."""

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from bot.playground.argocd.manifests import Json
from bot.playground.argocd.pods import stamp
from bot.playground.argocd.refusals import FORBIDDEN, UNAUTHENTICATED, Denied
from bot.playground.argocd.specs import CONTROL_PLANE, SimulatedApplication

_EXPIRED = "invalid session: token has invalid claims: token is expired"
_FORGED = "invalid session: token signature is invalid: signature is invalid"


@dataclass(slots=True, kw_only=True)
class Account:
    """Somebody who calls. Each right is a line of a policy: `applications, sync, default/*`."""

    username: str
    rights: set[str] = field(default_factory=set)
    issued_at: datetime = datetime(2026, 6, 1, tzinfo=UTC)
    is_logged_in: bool = True


class Access:
    """The accounts of one Argo CD.

    Attributes:
        token_expired: while true, every token is answered like an expired one.
        forbidden: names of applications that nobody may read, whatever their rights.
        anonymous: who a caller without a valid session is; None, as in a default installation, refuses them.
    """

    def __init__(
        self, token: str, *, projects: Callable[[], Iterable[str]], now: Callable[[], datetime]
    ) -> None:
        self.token_expired = False
        self.forbidden: set[str] = set()
        self.anonymous: Account | None = None
        self._token = token
        self._projects = projects
        self._now = now
        self._accounts = {token: Account(username="promote-bot")}

    def grant(self, right: str, *, token: str | None = None) -> None:
        """Give an account one more right, the first account if no token says otherwise."""
        self._accounts[token or self._token].rights.add(right)

    def revoke(self, right: str, *, token: str | None = None) -> None:
        """Take a right away again."""
        self._accounts[token or self._token].rights.discard(right)

    def add(self, token: str, username: str, *rights: str) -> None:
        """Add an account with nothing but these rights."""
        self._accounts[token] = Account(username=username, rights=set(rights))

    def allow_anonymous(self, *rights: str) -> None:
        """Take whoever has no valid session for a nobody with these rights, as `users.anonymous.enabled` does."""
        self.anonymous = Account(username="", rights=set(rights), is_logged_in=False)

    def caller(self, token: str | None) -> Account:
        """Whose token this is. Raises Denied for a token that is missing, unknown or expired."""
        try:
            return self._session(token)
        except Denied:
            if self.anonymous is None:
                raise
            return self.anonymous

    def allows(self, account: Account, resource: str, action: str, subject: str) -> bool:
        """Whether an account has a right on an object like `project/name`."""
        if subject.rpartition("/")[2] in self.forbidden:
            return False
        return any(_covers(right, resource, action, subject) for right in self._rights(account))

    def check(self, account: Account, resource: str, action: str, subject: str) -> None:
        """Raise Denied, in Argo CD's long words, unless the account has the right."""
        if not self.allows(account, resource, action, subject):
            asked = f"{resource}, {action}, {subject}"
            who = f"sub: {account.username}, iat: {stamp(account.issued_at)}"
            raise Denied(FORBIDDEN, f"permission denied: {asked}, {who}")

    def sees(self, account: Account, application: SimulatedApplication) -> bool:
        """Whether an account may read an application."""
        return self.allows(account, "applications", "get", application.rbac_name)

    def _rights(self, account: Account) -> Iterable[str]:
        """Its rights; the first account may read the applications of every project there is."""
        yield from account.rights
        if account is self._accounts[self._token]:
            for project in self._projects():
                yield f"applications, get, {project}/*"

    def _session(self, token: str | None) -> Account:
        if token is None:
            raise Denied(UNAUTHENTICATED, "no session information")
        account = self._accounts.get(token)
        if account is None:
            raise Denied(UNAUTHENTICATED, _FORGED)
        expires_at = _claims(token).get("exp")
        if self.token_expired or (expires_at is not None and self._now().timestamp() >= expires_at):
            raise Denied(UNAUTHENTICATED, _EXPIRED)
        return account


def make_token(subject: str, *, expires_at: datetime | None = None) -> str:
    """A token that says whose it is and when it ends; the signature is made up."""
    claims: Json = {"sub": subject, "iss": "argocd"}
    if expires_at is not None:
        claims["exp"] = int(expires_at.timestamp())
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def reduced(subject: str) -> str:
    """The object of a right without the control plane's namespace, which no right names."""
    project, *rest = subject.split("/")
    return "/".join([project, *(rest[1:] if len(rest) == 2 and rest[0] == CONTROL_PLANE else rest)])


def _covers(right: str, *asked: str) -> bool:
    return all(fnmatchcase(value, glob.strip()) for glob, value in zip(right.split(","), asked, strict=True))


def _claims(token: str) -> Json:
    """What a token says of itself; nothing if it cannot be read."""
    try:
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}
