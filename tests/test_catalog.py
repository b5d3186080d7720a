"""The catalog: names, the order of environments, versions, the quorum, and what an approval is bound to."""

from dataclasses import replace
from datetime import timedelta

import pytest
from builders import APPROVERS, ENVIRONMENTS, PROD, TWO, catalog, target
from hypothesis import given
from hypothesis import strategies as st

from bot.core.catalog import Catalog, Repository, checked_version, nearest
from bot.core.errors import Refused
from bot.core.policy import ApprovalRule, Policy

PEOPLE = [f"U{number}" for number in range(6)]
GROUPS = ["S0", "S1"]

somebody = st.sampled_from(PEOPLE)
groups = st.fixed_dictionaries({group: st.frozensets(somebody) for group in GROUPS})
rules = st.builds(
    ApprovalRule,
    users=st.frozensets(somebody, max_size=4),
    groups=st.frozensets(st.sampled_from(GROUPS)),
    minimum=st.integers(1, 3),
)
policies = st.builds(
    Policy, rules=st.lists(rules, min_size=1, max_size=3).map(tuple), total=st.integers(1, 4)
)


def people_of(rule: ApprovalRule, members: dict[str, frozenset[str]]) -> set[str]:
    """Everybody whom a rule admits, counted in the simplest way."""
    return set(rule.users).union(*(members[group] for group in rule.groups))


@given(policies, st.lists(somebody, max_size=8), groups)
def test_a_quorum_needs_the_total_and_each_rules_minimum(
    policy: Policy, approvers: list[str], members: dict[str, frozenset[str]]
) -> None:
    """The quorum is reached exactly when enough different admitted people approved, in all and for each rule."""
    voters = set(approvers)
    each = [people_of(rule, members) & voters for rule in policy.rules]
    reached = len(set().union(*each)) >= policy.total and all(
        len(found) >= rule.minimum for found, rule in zip(each, policy.rules, strict=True)
    )
    assert policy.is_satisfied(approvers, members) is reached


@given(policies, st.lists(somebody, max_size=5), groups)
def test_a_person_counts_once(
    policy: Policy, approvers: list[str], members: dict[str, frozenset[str]]
) -> None:
    """Saying yes several times is saying it once, in any order."""
    repeated = policy.is_satisfied([*approvers, *approvers], members)
    assert repeated is policy.is_satisfied(reversed(approvers), members)


@given(policies, st.lists(somebody, max_size=5), groups)
def test_a_stranger_counts_nothing(
    policy: Policy, approvers: list[str], members: dict[str, frozenset[str]]
) -> None:
    """An approver whom no rule admits changes nothing, however many there are."""
    strangers = ["U-eve", "U-mallory", "U-trent", "U-oscar"]
    assert policy.is_satisfied([*approvers, *strangers], members) is policy.is_satisfied(approvers, members)


@given(policies, st.lists(somebody, max_size=5), somebody, groups)
def test_one_more_yes_never_hurts(
    policy: Policy, approvers: list[str], more: str, members: dict[str, frozenset[str]]
) -> None:
    """A reached quorum stays reached when somebody else approves too."""
    if policy.is_satisfied(approvers, members):
        assert policy.is_satisfied([*approvers, more], members)


def test_nobody_has_to_agree_where_no_rule_is() -> None:
    """An environment without approvals goes on at once, and a policy with rules never does."""
    assert Policy().is_satisfied([], {})
    assert not Policy().needs_approval
    assert TWO.needs_approval
    assert not TWO.is_satisfied([], {})


def test_one_person_may_meet_two_rules_but_not_the_total_alone() -> None:
    """Somebody in both groups meets both minimums; “two people in all” still asks for a second one."""
    both = {"S0": frozenset({"U0"}), "S1": frozenset({"U0", "U1"})}
    pair = tuple(ApprovalRule(users=frozenset(), groups=frozenset({group}), minimum=1) for group in GROUPS)
    assert Policy(rules=pair, total=1).is_satisfied(["U0"], both)
    assert not Policy(rules=pair, total=2).is_satisfied(["U0"], both)
    assert Policy(rules=pair, total=2).is_satisfied(["U0", "U1"], both)


def test_a_policy_names_its_people_and_groups() -> None:
    """What has to be looked up in Slack is the union of all rules."""
    policy = Policy(rules=(APPROVERS, ApprovalRule(users=frozenset(), groups=frozenset({"S0"}), minimum=1)))
    assert policy.users == APPROVERS.users
    assert policy.groups == {"S0"}


def test_a_target_is_found_by_its_names() -> None:
    """The app and the environment together name one target."""
    assert catalog().target("manual-app", "stage").name == "manual-app/stage"


@pytest.mark.parametrize(
    ("app", "environment", "says"),
    [
        ("manual-ap", "prod", "I know no app called “manual-ap”. Did you mean “manual-app”?"),
        ("zzz", "prod", "I know no app called “zzz”. There is: manual-app."),
        ("manual-app", "prdo", "I know no environment called “prdo”. Did you mean “prod”?"),
        ("manual-app", "zzz", "I know no environment called “zzz”. There is: dev, stage, prod."),
        ("Manual-App", "prod", "I know no app called “Manual-App”. Did you mean “manual-app”?"),
    ],
)
def test_an_unknown_name_gets_the_nearest_match(app: str, environment: str, says: str) -> None:
    """Nothing is guessed: the person is shown the nearest name, or all of them."""
    with pytest.raises(Refused) as refused:
        catalog().target(app, environment)
    assert str(refused.value) == says


def test_an_app_may_lack_an_environment() -> None:
    """An environment that exists, but not for this app, is refused as such."""
    small = Catalog(environments=ENVIRONMENTS, targets=(target("dev"), target("prod")))
    with pytest.raises(Refused, match="manual-app has no stage environment"):
        small.target("manual-app", "stage")


def test_nothing_known_leaves_no_hint() -> None:
    """With an empty list there is nothing to suggest."""
    assert nearest("word", []) == ""


def test_the_environment_before_is_the_nearest_earlier_one_of_the_same_app() -> None:
    """The order is the configuration's; an environment that the app lacks is passed over."""
    whole = catalog()
    assert whole.before(target("prod")) == target("stage")
    assert whole.before(target("stage")) == target("dev")
    assert whole.before(target("dev")) is None
    other = target("stage", app="other-app")
    gap = Catalog(environments=ENVIRONMENTS, targets=(target("dev"), other, target("prod")))
    assert gap.before(target("prod")) == target("dev")


def test_only_the_first_environment_of_an_app_is_first() -> None:
    """Where a version enters the chain, nothing is held; an app that begins in stage enters there."""
    assert [catalog().is_first(target(each)) for each in ENVIRONMENTS] == [True, False, False]
    late = Catalog(environments=ENVIRONMENTS, targets=(target("stage"), target("prod")))
    assert late.is_first(target("stage"))


@pytest.mark.parametrize("version", ["15", "v1.4.2", "_x", "A-b_c.d", "1" * 128, "latest"])
def test_an_image_tag_is_a_version(version: str) -> None:
    """Whatever the OCI distribution specification calls a tag is taken as it is."""
    assert checked_version(version) == version


@pytest.mark.parametrize(
    "version",
    [
        *["", " 15", "15 ", "1 5", "15\n", ".15", "-15", "--force", "1" * 129, "1:5", "v1/2", "1@sha256"],
        *["é", "１５", "15;rm", "$(id)", "`id`", "15\x00", "<!channel>"],
    ],
)
def test_anything_else_is_refused_with_the_rule(version: str) -> None:
    """Odd characters never reach git, YAML or Slack; the answer says what a version looks like."""
    with pytest.raises(Refused, match="not a version: an image tag has up to 128 letters"):
        checked_version(version)


BOUND = {"old_version": "14", "version": "15", "digest": "unknown", "changes": ()}
OTHER_TARGETS = {
    "app": replace(PROD, app="other-app"),
    "environment": replace(PROD, environment="stage"),
    "repository": replace(PROD, repository=replace(PROD.repository, url="https://elsewhere.example.com/x")),
    "branch": replace(PROD, repository=replace(PROD.repository, branch="trunk")),
    "file": replace(PROD, path="values-stage.yaml"),
    "keys": replace(PROD, keys=("image.tag", "migrations.image.tag")),
    "minimum": replace(PROD, policy=replace(TWO, rules=(replace(APPROVERS, minimum=2),))),
    "people": replace(PROD, policy=replace(TWO, rules=(replace(APPROVERS, users=frozenset({"U0AMY"})),))),
    "group": replace(PROD, policy=replace(TWO, rules=(replace(APPROVERS, groups=frozenset({"S0"})),))),
    "total": replace(PROD, policy=replace(TWO, total=1)),
    "rules": replace(PROD, policy=Policy()),
}


@pytest.mark.parametrize("part", OTHER_TARGETS)
def test_the_content_hash_changes_with_each_part_of_the_target(part: str) -> None:
    """An approval is bound to where the commit goes and to the rules it was given under."""
    assert OTHER_TARGETS[part].content_hash(**BOUND) != PROD.content_hash(**BOUND)


@pytest.mark.parametrize("part", BOUND)
def test_the_content_hash_changes_with_each_version(part: str) -> None:
    """The value before, the value after and the image's digest are all part of what was approved."""
    assert PROD.content_hash(**{**BOUND, part: "16"}) != PROD.content_hash(**BOUND)


def test_the_content_hash_keeps_to_what_was_approved() -> None:
    """What the commit does not change (banner, channel, patience, the repository's name) invalidates no approval."""
    repository = Repository(name="renamed", url=PROD.repository.url, branch=PROD.repository.branch)
    patient = replace(PROD.policy, expires=timedelta(days=1))
    same = replace(PROD, banner=None, channel="C0OTHER", repository=repository, policy=patient)
    assert same.content_hash(**BOUND) == PROD.content_hash(**BOUND)
    assert PROD.content_hash(**BOUND).startswith("sha256:")


def test_values_that_swap_places_are_other_content() -> None:
    """14 → 15 and 15 → 14 are two decisions; so are two keys and one with a comma in it."""
    forth = PROD.content_hash(old_version="14", version="15", digest="unknown", changes=())
    back = PROD.content_hash(old_version="15", version="14", digest="unknown", changes=())
    assert forth != back
    two, one = replace(PROD, keys=("a", "b")), replace(PROD, keys=("a', 'b",))
    assert two.content_hash(**BOUND) != one.content_hash(**BOUND)


@given(policies)
def test_the_fingerprint_does_not_depend_on_the_order_of_people(policy: Policy) -> None:
    """The same rules give the same fingerprint in every process, whatever order a set has there."""
    shuffled = tuple(
        replace(rule, users=frozenset(sorted(rule.users, reverse=True))) for rule in policy.rules
    )
    assert replace(policy, rules=shuffled).fingerprint == policy.fingerprint
