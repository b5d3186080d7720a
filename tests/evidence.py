"""What a card shows of what a promotion brings, of gates that are closed, and of ways that leave something out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from builders import APPROVERS, BEN, DANA, MINUTE, NOON, PROD, in_phase, requested, target
from endings import LIVE, Case, progress

from bot.core.catalog import Image
from bot.core.dossier import Commit, Commits, Dossier
from bot.core.drafting import Draft
from bot.core.gates import Answer, Answers, Stand, closed, opened
from bot.core.outcome import Outcome
from bot.core.policy import EmergencyRule, Gate, Listed, Policy, RollbackRule
from bot.core.ports import Plan
from bot.core.promotion import Phase, Promotion, Way
from bot.core.rollout import Look, Stage
from bot.core.terms import target_for

HOUR = timedelta(hours=1)
DIGEST = "sha256:" + "0123456789abcdef" * 4
COMPARE = "https://git.example.com/acme/manual-app/compare/v14...v15"
SUBJECTS = (
    ("Charge the card once when the button is pressed twice", "Sam Okafor"),
    ("Tell the customer why a voucher was refused", "Lena Fuchs"),
    ("Round prices to cents before tax", "Sam Okafor"),
    ("Retry the payment provider after a timeout", "Ivo Brandt"),
    ("Move order numbers to 64 bit", "Lena Fuchs"),
    ("Drop the old basket endpoint", "Ivo Brandt"),
    ("Update the currency table", "renovate"),
)
BESIDES = (("Raise the memory limit to 512 Mi", "Kim Park"), ("Add a readiness probe", "Kim Park"))


def commits(*subjects: tuple[str, str], link: str | None = None, is_back: bool = False) -> Commits:
    """Commits of these subjects and authors."""
    newest = tuple(
        Commit(
            revision=f"{number:08x}" * 5,
            subject=subject,
            author=author,
            email=f"{author.split()[0].lower()}@example.com",
        )
        for number, (subject, author) in enumerate(subjects, start=0x4F2A91)
    )
    return Commits(count=len(newest), newest=newest, link=link, is_back=is_back)


FULL = Dossier(
    source=commits(*SUBJECTS, link=COMPARE),
    watched=commits(*BESIDES),
    binds_watched=True,
    differences=("replicas", "ingress.host"),
    soaked=26 * HOUR,
    checks=("integration passed", "load passed"),
    proof="the registry",
)
LOOSE = replace(FULL, binds_watched=False, checks=("integration failed", "load passed"), differences=())
UNKNOWN = Dossier(
    source=Commits(unknown="the image of 14 has no label with its revision"),
    watched=Commits(unknown="Argo CD is not available: timed out"),
    differences_unknown="values-stage.yaml has no such file",
)
BACK = Dossier(source=commits(*SUBJECTS[:3], link=COMPARE, is_back=True), watched=Commits(), proof="stage")

TELLS = Policy(
    rules=(APPROVERS,),
    total=2,
    notify=Listed(groups=frozenset({"S0SUPPORT"})),
    rollback=RollbackRule(who=Listed(users=frozenset({DANA.id}))),
    emergency=EmergencyRule(
        who=Listed(users=frozenset({DANA.id})), skips=frozenset({Gate.QUORUM, Gate.SOAK, Gate.WINDOWS})
    ),
)
STRICT = target("prod", policy=TELLS)
TAG_ONLY = target("prod", is_tag_only=True)


def found(dossier: Dossier | None) -> Look:
    """A look with what was found when it was asked for."""
    return Look(dossier=dossier)


def _under_its_terms(promotion: Promotion, look: Look | None = None) -> Case:
    return target_for(promotion, STRICT), promotion, look or Look()


def _emergency(phase: Phase) -> Promotion:
    return in_phase(phase, STRICT, way=Way.EMERGENCY, incident="INC-42", reason="checkout is down")


def _back(phase: Phase, way: Way | None = None) -> Promotion:
    change = requested().changes[0]
    return in_phase(
        phase,
        STRICT,
        version="14",
        old_version="15",
        source="prod",
        rollback_of="P-0000000000",
        reason="checkout is slow since 15",
        way=way,
        changes=(replace(change, before=change.after, after=change.before),),
    )


HELD = Look(
    held_by="It starts by itself when it may: stage has run it healthily for 3 h of 24 h",
    dossier=FULL,
)
MOVED = (
    "what prod renders from changed after it was asked for (Raise the memory limit to 512 Mi); "
    "nothing was committed"
)
GONE_LIVE = Look(applications=(progress(Stage.LIVE, LIVE, outcome=Outcome.LIVE),))
EVERYTHING: Case = (STRICT, requested(STRICT, digest=DIGEST, waits=True), found(FULL))
STALE: Case = (
    STRICT,
    requested(STRICT, digest=DIGEST).outdate(at=NOON + 9 * MINUTE, why=MOVED),
    Look(),
)

SHOWN: dict[str, Case] = {
    "requested, with everything": EVERYTHING,
    "requested, with what is live already": (STRICT, requested(STRICT, digest=DIGEST), found(LOOSE)),
    "requested, with nothing known": (PROD, requested(), found(UNKNOWN)),
    "requested, going back": (PROD, requested(digest=DIGEST), found(BACK)),
    "requested, tag only": (TAG_ONLY, requested(TAG_ONLY), found(Dossier(source=Commits()))),
    "approved, waiting for gates": (STRICT, in_phase(Phase.APPROVED, STRICT, waits=True), HELD),
    "committed, after a dossier": (STRICT, in_phase(Phase.COMMITTED, STRICT), found(FULL)),
    "emergency, requested": _under_its_terms(_emergency(Phase.REQUESTED), found(LOOSE)),
    "emergency, to be reviewed": _under_its_terms(_emergency(Phase.LIVE), GONE_LIVE),
    "emergency, reviewed": _under_its_terms(
        _emergency(Phase.LIVE).review(by=BEN.id, at=NOON + HOUR, why="the fix was right"), GONE_LIVE
    ),
    "rollback at once": _under_its_terms(_back(Phase.REQUESTED, Way.AT_ONCE)),
    "rollback that locks, committed": _under_its_terms(_back(Phase.COMMITTED, Way.AT_ONCE)),
    "rollback that locks, live": _under_its_terms(_back(Phase.LIVE), GONE_LIVE),
    "stale, something else moved": STALE,
}


def draft(*answers: Answer) -> Draft:
    """15 in the place of 14, in prod, and what the gates say."""
    return Draft(
        target=STRICT,
        source=target("stage"),
        image=Image(version="15", digest=DIGEST),
        plan=Plan(old_version="14", base="b" * 40, changes=requested().changes, is_done=False),
        dossier=FULL,
        answers=Answers(answers),
    )


SOAKS = Answer(
    gate=Gate.SOAK,
    stand=Stand.WAITS,
    says="stage has run it healthily for 3 h of 24 h",
    opens_at=NOON + 21 * HOUR,
)
WINDOW = Answer(
    gate=Gate.WINDOWS,
    stand=Stand.WAITS,
    says="no changes at the weekend",
    opens_at=NOON + 18 * HOUR,
)
LOCKED = closed(Gate.LOCKS, "manual-app/prod is locked: the sale runs")
PROBE = Answer(
    gate=Gate.PROBES,
    stand=Stand.UNKNOWN,
    says="probes: could not be checked: Prometheus is not available: it did not answer in time",
)
OPEN = (
    opened(Gate.ORDER, "stage runs 15, live and healthy"),
    opened(Gate.IMAGE, "the same build as in stage"),
    opened(Gate.BAD_VERSION, "nobody has blocked 15"),
    opened(Gate.CHECKS, "check integration: passed in stage"),
)
DRAFTS: dict[str, Draft] = {
    "may open": draft(*OPEN[:2], LOCKED, *OPEN[2:], SOAKS, WINDOW, PROBE),
    "never for this build": draft(closed(Gate.ORDER, "stage runs 16, not 15"), *OPEN[2:], SOAKS),
}
