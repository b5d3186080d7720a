"""Small values of the core for tests (people, targets, a promotion in any phase), and golden files."""

import difflib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bot.core.catalog import Application, Catalog, Repository, RolloutPolicy, Target
from bot.core.people import Person
from bot.core.policy import ApprovalRule, Policy
from bot.core.promotion import Approval, LineChange, Phase, Promotion, PromotionId, Signer, request

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ID = PromotionId("P-7F3KQ0V9XZ")
DANA = Signer(id="U0DANA", team="T0ACME", name="Dana", email="dana@example.com")
AMY = Signer(id="U0AMY", team="T0ACME", name="Amy", email="amy@example.com")
BEN = Signer(id="U0BEN", team="T0ACME", name="Ben")
APPROVERS = ApprovalRule(users=frozenset({AMY.id, BEN.id}), groups=frozenset(), minimum=1)
TWO = Policy(rules=(APPROVERS,), total=2)
ENVIRONMENTS = ("dev", "stage", "prod")


def target(environment: str = "prod", **changes: Any) -> Target:
    """`manual-app` in an environment; only prod needs approvals, two of them."""
    application = Application(
        server="main",
        name=f"manual-app-{environment}",
        project="default",
        link=f"https://argocd.example.com/applications/manual-app-{environment}",
    )
    plain = Target(
        app="manual-app",
        environment=environment,
        repository=Repository(
            name="gitops",
            url="https://git.example.com/acme/manual-app-helm.git",
            branch="main",
            commit_url="https://git.example.com/acme/manual-app-helm/commit/{revision}",
        ),
        path=f"values-{environment}.yaml",
        keys=("image.tag",),
        image="images.example.com/acme/manual-app",
        applications=(application,),
        channel="C0DEPLOYS",
        policy=TWO if environment == "prod" else Policy(),
        rollout=RolloutPolicy(),
        banner="Real users. Look twice." if environment == "prod" else None,
    )
    return replace(plain, **changes)


PROD = target("prod")


def catalog() -> Catalog:
    """`manual-app` in dev, stage and prod, in this order."""
    return Catalog(environments=ENVIRONMENTS, targets=tuple(target(each) for each in ENVIRONMENTS))


def person(signer: Signer, **changes: Any) -> Person:
    """Somebody as Slack's directory describes them: a full member, but for the changes."""
    return Person(id=signer.id, team=signer.team, name=signer.name, email=signer.email, **changes)


def requested(where: Target = PROD, **changes: Any) -> Promotion:
    """Dana asks for 15 in place of 14."""
    change = LineChange(path=where.path, number=3, before='  tag: "14"', after='  tag: "15"')
    promotion = request(
        where,
        id=ID,
        source="stage",
        version="15",
        old_version="14",
        changes=(change,),
        by=DANA,
        at=NOON,
        reason="fixes INC-42",
    )
    return replace(promotion, **({"request_seal": "0" * 64} | changes))


def approval(promotion: Promotion, by: Signer = AMY, *, at: datetime = NOON + MINUTE) -> Approval:
    """A yes to what the promotion shows."""
    return Approval(by=by, at=at, content_hash=promotion.content_hash, seal="1" * 64)


def in_phase(phase: Phase, where: Target = PROD, **changes: Any) -> Promotion:
    """A promotion that came to a phase on the usual way; approved by Amy and Ben where it went so far."""
    at, why = NOON + 2 * MINUTE, "as the test says"
    open_ = requested(where, **changes)
    early = {
        Phase.REQUESTED: lambda: open_,
        Phase.REJECTED: lambda: open_.reject(by=AMY.id, at=at, why=why),
        Phase.EXPIRED: lambda: open_.expire(at=at, why=why),
        Phase.CANCELLED: lambda: open_.cancel(by=DANA.id, at=at, why=why),
        Phase.SUPERSEDED: lambda: open_.supersede(at=at, why=why),
        Phase.STALE: lambda: open_.outdate(at=at, why=why),
    }
    if phase in early:
        return early[phase]()
    both = open_.approve(approval(open_, AMY)).approve(approval(open_, BEN))
    approved = both.reach_quorum(at=at, link="https://acme.example.com/archives/C0DEPLOYS/p1")
    committing = approved if phase is Phase.APPROVED else approved.start_commit(at=at, base="b" * 40)
    if phase in (Phase.APPROVED, Phase.COMMITTING):
        return committing
    committed = committing.commit(at=at, revision="c" * 40)
    later = at + timedelta(seconds=131)
    ends = {
        Phase.COMMITTED: lambda: committed,
        Phase.LIVE: lambda: committed.go_live(at=later, why="synced and healthy, every pod runs it"),
        Phase.FAILED: lambda: committed.fail(at=later, why="sync failed: Deployment/manual-app: no space"),
    }
    return ends[phase]()


def same_as_golden(name: str, text: str) -> None:
    """Fail with a diff unless the golden file holds exactly this text; `GOLDEN=write` renews it."""
    file = Path(__file__).parent / "golden" / name
    if os.environ.get("GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="")
    hint = (
        f"Where the change is meant, renew it: GOLDEN=write make test, and look at the diff of {file.name}."
    )
    assert file.exists(), f"There is no golden file {file.name}. {hint}"
    golden = file.read_text(encoding="utf-8")
    diff = difflib.unified_diff(golden.splitlines(), text.splitlines(), f"golden/{name}", "now", lineterm="")
    assert golden == text, "\n".join([f"The text differs from golden/{name}. {hint}", *diff])
