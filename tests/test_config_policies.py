"""The rules of an environment in `promote.yaml`: each becomes the core's, and one that cannot be kept is named."""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bot.config import ConfigError, build_catalog, load
from bot.config_models import AppModel, Config
from bot.config_policies import policy_of, scope_of
from bot.config_texts import checked_address, checked_cron, checked_query, checked_zone
from bot.core.catalog import Catalog, RolloutPolicy, Source, Target
from bot.core.policy import (
    CONTENT,
    ApprovalRule,
    CheckRule,
    Effect,
    EmergencyRule,
    Gate,
    Listed,
    Policy,
    Probe,
    RollbackRule,
    Window,
)
from bot.integrations.calendar import CronCalendar
from bot.policy_models import ApprovalsModel, PolicyModel

DOCUMENT = Path(__file__).parents[1] / "docs" / "policies.md"

TEXT = """\
version: 1
environments: [dev, stage, prod]
slack: {channel: C0DEPLOYS}
repositories: {gitops: {url: "https://git.example.com/acme/gitops.git"}}
argocd: {main: {url: "https://argocd.example.com"}}
defaults:
  repository: gitops
  argocd: main
  keys: [image.tag]
  values: "{app}/{env}.yaml"
  applications: ["{app}-{env}"]
apps:
  web:
    image: ghcr.io/acme/web
  job:
    image: ghcr.io/acme/job
policies:
  prod:
    approvals:
      rules: [{users: [U0AMYAPPROVE, U0BENAPPROVE], min: 1}]
      expires: 4h
"""
AMY, BEN, SRE = "U0AMYAPPROVE", "U0BENAPPROVE", "S0SREGROUP"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration of a test stands."""
    return tmp_path / "promote.yaml"


def catalog_of(file: Path, text: str) -> Catalog:
    """The catalog that the text describes."""
    file.write_text(text, encoding="utf-8")
    return build_catalog(load(file))


def targets_of(file: Path, text: str) -> Mapping[str, Target]:
    """Its targets by name."""
    return {target.name: target for target in catalog_of(file, text).targets}


def with_rules(rules: str, *, web: str = "") -> str:
    """The configuration with more rules for prod, and with rules for `web` there; each in lines or in flow style."""
    text = TEXT + "".join(f"    {line}\n" for line in rules.splitlines())
    own = f"acme/web\n    policies: {{prod: {{{web}}}}}\n" if web else "acme/web\n"
    return text.replace("acme/web\n", own)


def prod(file: Path, rules: str) -> Policy:
    """The policy of `web` in prod with these rules more."""
    return targets_of(file, with_rules(rules))["web/prod"].policy


def wrong(file: Path, text: str) -> list[str]:
    """What is said against the text, one problem a line, each with the file's name taken off its front."""
    with pytest.raises(ConfigError) as refused:
        catalog_of(file, text)
    return [line.removeprefix(f"{file}:") for line in str(refused.value).splitlines()]


def test_a_file_without_new_rules_means_what_it_meant(file: Path) -> None:
    """An approval that was given before the new rules existed counts after them: nothing of the policy changes."""
    found = targets_of(file, TEXT)
    rule = ApprovalRule(users=frozenset({AMY, BEN}), groups=frozenset(), minimum=1)
    assert found["web/prod"].policy == Policy(rules=(rule,), total=1, expires=timedelta(hours=4))
    assert found["web/dev"].policy == found["web/stage"].policy == Policy()
    words = repr(([([AMY, BEN], [], 1)], 1))
    assert found["web/prod"].policy.fingerprint == "sha256:" + hashlib.sha256(words.encode()).hexdigest()


def test_a_target_without_new_settings_is_what_it_was(file: Path) -> None:
    """No source, no expected difference, the digest compared, and nobody's address known."""
    catalog = catalog_of(file, TEXT)
    assert catalog.identities == {}
    for target in catalog.targets:
        assert (target.source, target.is_tag_only, target.expected_differences) == (None, False, ())


APPROVALS = """\
  deny: {users: [U0EVEINTERN], groups: [S0CONTRACT]}
  commit_authors: false
  unknown_authors: allow
  last_requester: false
  notify: [U0DANNOTIFY, S0SREGROUP]
"""
RULES: Mapping[str, tuple[str, dict[str, Any]]] = {
    # what is written, and what of the policy is other than without it
    "soak": ("soak: 24h", {"soak": timedelta(hours=24)}),
    "no soak": ("soak: 0s", {}),
    "waits": ("waits: 7d", {"waits": timedelta(days=7)}),
    "parity": ("parity: required", {"parity": True}),
    "parity ignored": ("parity: ignored", {}),
    "requesters": (
        f"requesters: [{AMY}, {SRE}]",
        {"requesters": Listed(users=frozenset({AMY}), groups=frozenset({SRE}))},
    ),
    "lockers": (f"lockers: [{SRE}]", {"lockers": Listed(groups=frozenset({SRE}))}),
    "checks": (
        f"checks: [{{name: api, reporters: [{AMY}]}}, {{name: load.test, reporters: [{SRE}]}}]",
        {
            "checks": (
                CheckRule(name="api", reporters=Listed(users=frozenset({AMY}))),
                CheckRule(name="load.test", reporters=Listed(groups=frozenset({SRE}))),
            )
        },
    ),
    "a probe": (
        'probes: [{name: board, url: "https://board.example.com/{app}/{version}"}]',
        {"probes": (Probe(name="board", url="https://board.example.com/{app}/{version}"),)},
    ),
    "a probe of a number": (
        """probes: [{name: errors, url: "https://prom", query: 'up{app="{app}"}', at_least: 1, at_most: 2.5, within: 8s}]""",
        {
            "probes": (
                Probe(
                    name="errors",
                    url="https://prom",
                    query='up{app="{app}"}',
                    at_least=1.0,
                    at_most=2.5,
                    within=timedelta(seconds=8),
                ),
            )
        },
    ),
    "a window again and again": (
        'windows: [{deny: "0  17 * * FRI", for: 63h, zone: Europe/Berlin, why: weekend}]',
        {
            "windows": (
                Window(
                    effect=Effect.DENY,
                    zone="Europe/Berlin",
                    cron="0 17 * * FRI",
                    lasts=timedelta(hours=63),
                    why="weekend",
                ),
            )
        },
    ),
    "a window once": (
        "windows: [{allow: {from: 2026-06-23T18:00, to: 2026-12-24T08:00}, zone: Europe/Berlin}]",
        {
            "windows": (
                Window(
                    effect=Effect.ALLOW,
                    zone="Europe/Berlin",
                    begins=datetime(2026, 6, 23, 16, 0, tzinfo=UTC),
                    ends=datetime(2026, 12, 24, 7, 0, tzinfo=UTC),
                ),
            )
        },
    ),
    "a rollback": (
        f"rollback: {{who: [{SRE}]}}",
        {"rollback": RollbackRule(who=Listed(groups=frozenset({SRE})))},
    ),
    "a rollback in full": (
        f"rollback: {{who: [{AMY}], within: 1h, lock: false}}",
        {
            "rollback": RollbackRule(
                who=Listed(users=frozenset({AMY})), within=timedelta(hours=1), locks=False
            )
        },
    ),
    "an emergency": (
        f"emergency: {{who: [{AMY}], skips: [soak, quorum]}}",
        {
            "emergency": EmergencyRule(
                who=Listed(users=frozenset({AMY})), skips=frozenset({Gate.SOAK, Gate.QUORUM})
            )
        },
    ),
    "approvals": (
        APPROVALS,
        {
            "denied": Listed(users=frozenset({"U0EVEINTERN"}), groups=frozenset({"S0CONTRACT"})),
            "commit_authors": False,
            "unknown_authors": True,
            "last_requester": False,
            "notify": Listed(users=frozenset({"U0DANNOTIFY"}), groups=frozenset({SRE})),
        },
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_becomes_the_cores(name: str, file: Path) -> None:
    """What is written for prod changes that part of its policy and nothing else, and holds in prod alone."""
    written, differs = RULES[name]
    found = targets_of(file, with_rules(written))
    expected = replace(targets_of(file, TEXT)["web/prod"].policy, **differs)
    assert found["web/prod"].policy == expected
    assert found["web/prod"].policy.fingerprint == expected.fingerprint
    assert found["web/stage"].policy == Policy()


KEYS = st.fixed_dictionaries(
    {},
    optional={
        "approvals": st.integers(1, 3).map(lambda total: {"rules": [{"group": SRE, "min": total}]}),
        "soak": st.sampled_from(["0s", "1h", "2h"]),
        "checks": st.lists(st.sampled_from(["api", "load"]), unique=True),
        "parity": st.sampled_from(["required", "ignored"]),
        "windows": st.sampled_from([[], [{"deny": "0 17 * * FRI", "for": "1h", "zone": "UTC"}]]),
        "waits": st.sampled_from(["1h", "3d"]),
        "requesters": st.sampled_from([[AMY], [SRE]]),
        "rollout": st.sampled_from([{"timeout": "1h"}, {"logs": True}]),
        "emergency": st.just({"who": [AMY], "skips": ["order"]}),
    },
)


def configured(policies: dict[str, Any], own: dict[str, Any]) -> Config:
    """The configuration with these rules of prod, and these of `web` there."""
    raw = YAML(typ="safe", pure=True).load(TEXT)
    raw["apps"]["web"]["policies"] = {"prod": own}
    return Config.model_validate(raw | {"policies": {"prod": policies}})


@given(KEYS, KEYS)
def test_an_apps_rules_take_the_place_of_the_environments_key_by_key(
    common: dict[str, Any], own: dict[str, Any]
) -> None:
    """Each key that the app has replaces the whole key; every other one stays, and other apps have the environment's."""
    mixed = {target.name: target for target in build_catalog(configured(common, own)).targets}
    same = {target.name: target for target in build_catalog(configured(common | own, {})).targets}
    plain = {target.name: target for target in build_catalog(configured(common, {})).targets}
    for name, found in (("web/prod", same), ("job/prod", plain), ("web/stage", plain)):
        assert (mixed[name].policy, mixed[name].rollout) == (found[name].policy, found[name].rollout)


def test_whose_rules_ask_for_approval_decides_whether_logs_are_sent(file: Path) -> None:
    """An app that alone needs approval keeps its pods' words to itself, as an environment does."""
    approvals = f"approvals: {{rules: [{{users: [{AMY}]}}]}}"
    text = with_rules("", web=approvals).replace("policies:\n  prod:\n", "policies:\n  dev:\n")
    found = targets_of(file, text)
    assert found["web/prod"].rollout == RolloutPolicy(sends_logs=False)
    assert found["job/prod"].rollout == RolloutPolicy(sends_logs=True)


def test_a_window_may_hold_for_some_apps_alone(file: Path) -> None:
    """The others do not have it."""
    window = '{deny: "0 17 * * FRI", for: 63h, zone: UTC, why: weekend, apps: [job]}'
    found = targets_of(
        file, with_rules(f"windows: [{window}, {{allow: '0 8 * * *', for: 9h, zone: UTC, why: office}}]")
    )
    assert [each.why for each in found["web/prod"].policy.windows] == ["office"]
    assert [each.why for each in found["job/prod"].policy.windows] == ["weekend", "office"]


def test_a_window_that_never_opens_is_the_authors_choice(file: Path) -> None:
    """A freeze is written so, and nothing in it is wrong."""
    assert prod(file, 'windows: [{deny: "* * * * *", for: 1h, zone: UTC, why: freeze}]').windows


def test_the_source_of_an_app_is_its_own(file: Path) -> None:
    """Its address and the page of a comparison; the other app has none."""
    source = "source: {url: git@git.example.com:acme/web.git, compare_url: 'https://c/{old}...{new}'}"
    found = targets_of(
        file, TEXT.replace("acme/web\n", f"acme/web\n    {source}\n    same_image: tag-only\n")
    )
    assert found["web/dev"].source == Source(
        url="git@git.example.com:acme/web.git", compare_url="https://c/{old}...{new}"
    )
    assert (found["web/prod"].is_tag_only, found["job/prod"].is_tag_only) == (True, False)
    assert found["job/prod"].source is None


def test_expected_differences_are_said_once_or_nearer(file: Path) -> None:
    """As keys are: the environment's own word, else the app's, else the defaults'; none of them is a word too."""
    text = TEXT.replace("defaults:\n", "defaults:\n  expected_differences: [replicas, env.LOG_LEVEL]\n")
    text = text.replace(
        "acme/web\n", "acme/web\n    environments: {stage: {}, prod: {expected_differences: []}}\n"
    )
    text = text.replace("acme/job\n", "acme/job\n    expected_differences: [ingress.host]\n")
    found = {name: target.expected_differences for name, target in targets_of(file, text).items()}
    assert found["web/stage"] == ("replicas", "env.LOG_LEVEL")
    assert found["web/prod"] == ()
    assert found["job/prod"] == ("ingress.host",)


def test_the_audit_channel_is_every_targets(file: Path) -> None:
    """One channel hears of every emergency; without it none does."""
    text = TEXT.replace("channel: C0DEPLOYS", "channel: C0DEPLOYS, audit: C0AUDITLOG")
    assert {target.audit for target in targets_of(file, text).values()} == {"C0AUDITLOG"}
    assert {target.audit for target in targets_of(file, TEXT).values()} == {None}


def test_an_address_is_known_in_small_letters(file: Path) -> None:
    """Git keeps what somebody typed; `Ann@ACME.io` and `ann@acme.io` are one person."""
    text = (
        TEXT + "identities: {Ann@ACME.io: U0ANNWRITES, ann@acme.io: U0ANNWRITES, bob@acme.io: W0BOBWRITES}\n"
    )
    assert catalog_of(file, text).identities == {"ann@acme.io": "U0ANNWRITES", "bob@acme.io": "W0BOBWRITES"}


def test_a_hook_speaks_of_what_it_names_and_of_all_where_it_says_so(file: Path) -> None:
    """A star stands for every app or every environment, and only where somebody wrote it."""
    hooks = "hooks:\n  ci: {apps: ['*'], environments: [stage], actions: ['check:*']}\n"
    file.write_text(TEXT + hooks + "  web-ci: {apps: [web], environments: ['*'], actions: [set-image]}\n")
    config = load(file)
    assert scope_of(config, "ci") == ({"web", "job"}, {"stage"})
    assert scope_of(config, "web-ci") == ({"web"}, {"dev", "stage", "prod"})


MISTAKES = {
    # a rule of prod, and what is said: line, then sentence
    "a misspelt rule": ("soack: 1h", '22: unknown key "soack", did you mean "soak"?'),
    "a misspelt key of a window": ('windows: [{deny: "* * * * *", fro: 1h, zone: UTC}]', '22: unknown key "fro", did you mean "for"?'),
    "a misspelt key of a span": ("windows: [{deny: {form: 2026-12-23T18:00, to: 2027-01-02T08:00}, zone: UTC}]", '22: unknown key "form", did you mean "from"?'),
    "a misspelt key of a check": ("checks: [{name: api, reporter: []}]", '22: unknown key "reporter", did you mean "reporters"?'),
    "a rule without a value": ("soak:", "22: policies.prod.soak: is there, but says nothing; fill it in, or take the key out"),
    "a limit without a value": ("probes: [{name: a, url: https://a, query: up, at_most: }]", "22: policies.prod.probes.0.at_most: is there, but says nothing"),
    "a soak without a unit": ("soak: 24", "22: policies.prod.soak: must be a number with a unit, like 30s"),
    "a soak of years": ("soak: 366d", "22: policies.prod.soak: must be from 1s to 365d"),
    "no time to wait": ("waits: 0s", "22: policies.prod.waits: must be from 1s to 365d"),
    "parity by halves": ("parity: yes", "22: policies.prod.parity: must be 'required' or 'ignored'"),
    "a requester by name": ("requesters: [amy]", "22: policies.prod.requesters.0: 'amy' is the id of neither a person nor a user group. Write the id"),
    "nobody who may ask": ("requesters: []", "22: policies.prod.requesters: must not be empty"),
    "nobody who may lock": ("lockers: []", "22: policies.prod.lockers: must not be empty"),
    "a check that is no name": ("checks: [Integration Tests]", "22: policies.prod.checks.0.name: must match"),
    "a check twice": (f"checks: [{{name: api, reporters: [{AMY}]}}, api]", "22: policies.prod.checks: api stands there twice"),
    "a check that nobody can report": ("checks: [api]", "22: policies.prod.checks.0: nobody can report api for web; give it reporters, or give a hook the action check:api"),
    "a probe twice": ("probes: [{name: a, url: https://a}, {name: a, url: https://b}]", "22: policies.prod.probes: a stands there twice"),
    "a probe without an address": ("probes: [{name: a}]", '22: "policies.prod.probes.0.url" is missing'),
    "a probe by another way": ("probes: [{name: a, url: ftp://a}]", "22: policies.prod.probes.0: url must be like https://host/path"),
    "a probe without encryption": ("probes: [{name: a, url: http://a/}]", "22: policies.prod.probes.0: url is not encrypted"),
    "a password in a probe": ("probes: [{name: a, url: 'https://bob:hunter2@a/'}]", "22: policies.prod.probes.0: url holds a user or a password; put a token into PROBE_TOKEN_<NAME>"),
    "a version that chooses the host": ("probes: [{name: a, url: 'https://{version}.example.com/'}]", "22: policies.prod.probes.0: url must be like"),
    "a placeholder that is not one": ("probes: [{name: a, url: 'https://a/{enviroment}'}]", "22: policies.prod.probes.0: {enviroment} is unknown. Did you mean “environment”?"),
    "a placeholder in bare PromQL": ("probes: [{name: a, url: https://a, query: 'up == {version}', at_most: 1}]", "22: policies.prod.probes.0.query: {version} must stand inside of double quotes"),
    "a limit without a query": ("probes: [{name: a, url: https://a, at_most: 1}]", "22: policies.prod.probes.0: at_least and at_most need a query"),
    "a query without a limit": ("probes: [{name: a, url: https://a, query: up}]", "22: policies.prod.probes.0: query needs at_least or at_most"),
    "limits the wrong way": ("probes: [{name: a, url: https://a, query: up, at_least: 2, at_most: 1}]", "22: policies.prod.probes.0: at_least is more than at_most"),
    "a limit that is no number": ("probes: [{name: a, url: https://a, query: up, at_most: .nan}]", "22: policies.prod.probes.0.at_most: must be a number"),
    "a limit in words": ("probes: [{name: a, url: https://a, query: up, at_most: true}]", "22: policies.prod.probes.0.at_most: must be a number"),
    "a probe that may take long": ("probes: [{name: a, url: https://a, within: 9s}]", "22: policies.prod.probes.0.within: must be at most 8s"),
    "a window without a zone": ('windows: [{deny: "* * * * *", for: 1h}]', '22: "policies.prod.windows.0.zone" is missing'),
    "a zone that is not one": ('windows: [{deny: "* * * * *", for: 1h, zone: Europe/Belrin}]', "22: policies.prod.windows.0.zone: “Europe/Belrin” is no time zone. Did you mean “Europe/Berlin”?"),
    "the machine's own zone": ('windows: [{deny: "* * * * *", for: 1h, zone: localtime}]', "22: policies.prod.windows.0.zone: “localtime” is no time zone."),
    "a cron line that is none": ('windows: [{deny: "0 25 * * *", for: 1h, zone: UTC}]', "22: policies.prod.windows.0.deny.cron: “0 25 * * *” is no cron line: its hour is wrong. Write minute"),
    "a cron line with seconds": ('windows: [{deny: "0 0 17 * * FRI", for: 1h, zone: UTC}]', "22: policies.prod.windows.0.deny.cron: “0 0 17 * * FRI” is no cron line: it has 6 fields, not five."),
    "a cron line with a step that is too long": ('windows: [{deny: "*/90 * * * *", for: 1h, zone: UTC}]', "22: policies.prod.windows.0.deny.cron: “*/90 * * * *” is no cron line: a step in its minute is over 60."),
    "a cron line that says not how long": ('windows: [{deny: "0 17 * * FRI", zone: UTC}]', "22: policies.prod.windows.0: a cron line only says when it begins; say how long it lasts, like for: 63h"),
    "a span with a length": ("windows: [{deny: {from: 2026-12-23T18:00, to: 2027-01-02T08:00}, for: 1h, zone: UTC}]", "22: policies.prod.windows.0: for belongs to a cron line"),
    "a span backwards": ("windows: [{deny: {from: 2027-01-02T08:00, to: 2026-12-23T18:00}, zone: UTC}]", "22: policies.prod.windows.0.deny: from must be before to"),
    "a span without an end": ("windows: [{deny: {from: 2027-01-02T08:00}, zone: UTC}]", "22: policies.prod.windows.0.deny: give a cron line, or from and to"),
    "a moment with an offset": ("windows: [{deny: {from: 2026-12-23T18:00:00+01:00, to: 2027-01-02T08:00}, zone: UTC}]", "22: policies.prod.windows.0.deny.from: must be like 2026-12-23T18:00"),
    "a moment that is a day": ("windows: [{deny: {from: 2026-12-23, to: 2027-01-02T08:00}, zone: UTC}]", "22: policies.prod.windows.0.deny.from: must be like 2026-12-23T18:00"),
    "a moment that never comes": ("windows: [{deny: {from: 2026-02-30T18:00, to: 2027-01-02T08:00}, zone: UTC}]", "22: policies.prod.windows.0.deny.from: 2026-02-30T18:00 is no moment"),
    "a window that does both": ('windows: [{deny: "* * * * *", allow: "* * * * *", for: 1h, zone: UTC}]', "22: policies.prod.windows.0: give either deny or allow"),
    "a window that does nothing": ("windows: [{for: 1h, zone: UTC}]", "22: policies.prod.windows.0: give either deny or allow"),
    "a window of an unknown app": ('windows: [{deny: "* * * * *", for: 1h, zone: UTC, apps: [wep]}]', "22: policies.prod.windows.0.apps.0: the app 'wep' is unknown. Did you mean “web”?"),
    "a rollback by nobody": ("rollback: {within: 1h}", "22: policies.prod.rollback: names nobody who may roll back: give who"),
    "an emergency by nobody": ("emergency: {skips: [soak]}", "22: policies.prod.emergency: names nobody who may declare it: give who"),
    "an emergency by an empty list": ("emergency: {who: [], skips: [soak]}", "22: policies.prod.emergency: names nobody who may declare it: give who"),
    "an emergency that passes nothing": (f"emergency: {{who: [{AMY}], skips: []}}", "22: policies.prod.emergency.skips: must not be empty"),
    "an emergency that passes what is no gate": (f"emergency: {{who: [{AMY}], skips: [soka]}}", "22: policies.prod.emergency.skips.0: 'soka' is no gate. Did you mean “soak”?"),
    "an emergency that passes a wish": (f"emergency: {{who: [{AMY}], skips: [zzz]}}", "22: policies.prod.emergency.skips.0: 'zzz' is no gate. There is: order, soak, checks, probes, parity, windows, locks, quorum."),
    "authors that nobody knows": ("  commit_authors: false", "13: apps.web: nobody could ever approve for prod, as nobody knows who wrote what it brings (commit_authors is false). Add source"),
    "a denied person who is needed": (f"  total: 2\n  deny: {{users: [{AMY}]}}", "19: policies.prod.approvals: total is 2, but only 1 people are named who are not denied"),
    "denied people who are needed": (f"  deny: {{users: [{AMY}, {BEN}]}}", "19: policies.prod.approvals: min is 1, but only 0 people are named who are not denied"),
    "a group among denied people": (f"  deny: {{users: [{SRE}]}}", f"22: policies.prod.approvals.deny.users.0: {SRE!r} is not a user id."),
    "authors by halves": ("  unknown_authors: maybe", "22: policies.prod.approvals.unknown_authors: must be 'refuse' or 'allow'"),
    "a truth that is none": ("  last_requester: never", "22: policies.prod.approvals.last_requester: must be true or false"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_rule_that_cannot_be_kept_is_named_with_its_line(name: str, file: Path) -> None:
    """Each kind of mistake in a rule gives file and line, the nearest match or what to write, and never a secret."""
    written, says = MISTAKES[name]
    found = wrong(file, with_rules(written))
    assert any(line.startswith(says) for line in found), found
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize("gate", sorted(CONTENT))
def test_no_emergency_passes_what_would_run(gate: Gate, file: Path) -> None:
    """The image and the list of bad versions hold, whatever burns."""
    found = wrong(file, with_rules(f"emergency: {{who: [{AMY}], skips: [{gate.value}]}}"))
    assert found[0].startswith(f"22: policies.prod.emergency.skips.0: no emergency passes {gate.value}: ")


@pytest.mark.parametrize("gate", sorted(set(Gate) - CONTENT))
def test_an_emergency_may_pass_every_other_gate(gate: Gate, file: Path) -> None:
    """Each by the core's own word."""
    emergency = prod(file, f"emergency: {{who: [{AMY}], skips: [{gate.value}]}}").emergency
    assert emergency is not None
    assert emergency.skips == {gate}


ELSEWHERE = {
    # what is changed elsewhere, into what, and what is said
    "a rule of the first environment": ("policies:\n", "policies:\n  dev: {soak: 1h}\n", "18: policies.dev.soak: no environment comes before dev; take it out"),
    "checks of the first environment": ("policies:\n", f"policies:\n  dev: {{checks: [{{name: a, reporters: [{AMY}]}}]}}\n", "18: policies.dev.checks: no environment comes before dev"),
    "parity of the first environment": ("policies:\n", "policies:\n  dev: {parity: required}\n", "18: policies.dev.parity: no environment comes before dev"),
    "a rule of an app's first environment": ("acme/web\n", "acme/web\n    environments: {prod: {}}\n    policies: {prod: {soak: 1h}}\n", "16: apps.web.policies.prod.soak: web has no environment before prod; say soak: 0s in apps.web.policies.prod"),
    "a policy for an environment that nobody has": ("  prod:\n", "  prd:\n", "18: policies.prd: the environment 'prd' is unknown. Did you mean “prod”?"),
    "an app's policy for an environment that nobody has": ("acme/web\n", "acme/web\n    policies: {prd: {soak: 1h}}\n", "15: apps.web.policies.prd: web's environment 'prd' is unknown. Did you mean “prod”?"),
    "an app's policy for an environment that it does not have": ("acme/web\n", "acme/web\n    environments: {dev: {}, stage: {}}\n    policies: {prod: {soak: 1h}}\n", "16: apps.web.policies.prod: web's environment 'prod' is unknown. There is: dev, stage."),
    "a choice of apps in an app's window": ("acme/web\n", "acme/web\n    policies: {prod: {windows: [{deny: '* * * * *', for: 1h, zone: UTC, apps: [web]}]}}\n", "15: apps.web.policies.prod.windows.0.apps: this window is web's own already; take apps out"),
    "an app's check that nobody can report": ("acme/web\n", "acme/web\n    policies: {prod: {checks: [api]}}\n", "15: apps.web.policies.prod.checks.0: nobody can report api for web"),
    "a hook for other apps": ("policies:\n", "hooks: {ci: {apps: [job], environments: [prod], actions: ['check:api']}}\npolicies:\n  stage: {checks: [api]}\n", "19: policies.stage.checks.0: nobody can report api for web"),
    "a hook for other checks": ("policies:\n", f"hooks: {{ci: {{apps: ['*'], environments: [prod], actions: ['check:load']}}}}\npolicies:\n  stage: {{checks: [api, {{name: load, reporters: [{AMY}]}}]}}\n", "19: policies.stage.checks.0: nobody can report api for web"),
    "a source with a password": ("acme/web\n", "acme/web\n    source: {url: 'https://bob:hunter2@h/x'}\n", "15: apps.web.source: url holds a user or a password"),
    "a source without encryption": ("acme/web\n", "acme/web\n    source: {url: 'http://h/x'}\n", "15: apps.web.source: url is not encrypted"),
    "a comparison without revisions": ("acme/web\n", "acme/web\n    source: {url: 'https://h/x', compare_url: 'https://h/{old}'}\n", "15: apps.web.source.compare_url: must be an address that holds {old} and {new}"),
    "an image that is half the same": ("acme/web\n", "acme/web\n    same_image: tag\n", "15: apps.web.same_image: must be 'tag-only'"),
    "an audit channel by name": ("channel: C0DEPLOYS", "channel: C0DEPLOYS, audit: '#audit'", "3: slack.audit: '#audit' is not a channel id"),
    "an identity by name": ("apps:\n", "identities: {ann@acme.io: ann}\napps:\n", "12: identities.ann@acme.io: 'ann' is not a user id"),
    "an identity without an address": ("apps:\n", "identities: {ann: U0ANNWRITES}\napps:\n", "12: identities.ann: must match"),
    "an address of two people": ("apps:\n", "identities: {a@b.c: U0ANNWRITES, A@b.c: U0BOBWRITES}\napps:\n", "12: identities.A@b.c: this address belongs to U0ANNWRITES already"),
    "a hook of an unknown app": ("apps:\n", "hooks: {ci: {apps: [wep], environments: [dev], actions: [set-image]}}\napps:\n", "12: hooks.ci.apps.0: the app 'wep' is unknown. Did you mean “web”?"),
    "a hook of an unknown environment": ("apps:\n", "hooks: {ci: {apps: [web], environments: [dve], actions: [set-image]}}\napps:\n", "12: hooks.ci.environments.0: the environment 'dve' is unknown. Did you mean “dev”?"),
    "a hook of an unknown check": ("apps:\n", "hooks: {ci: {apps: [web], environments: [dev], actions: ['check:apy']}}\napps:\n", "12: hooks.ci.actions.0: the action 'check:apy' is unknown."),
    "a hook of an unknown action": ("apps:\n", "hooks: {ci: {apps: [web], environments: [dev], actions: [setimage]}}\napps:\n", "12: hooks.ci.actions.0: 'setimage' is no action: write set-image"),
    "a hook that may do nothing": ("apps:\n", "hooks: {ci: {apps: [web], environments: [dev], actions: []}}\napps:\n", "12: hooks.ci.actions: must not be empty"),
    "a hook that shares a setting's name": ("apps:\n", "hooks: {ci.x: {apps: [web], environments: [dev], actions: [set-image]}}\napps:\n", "12: hooks.ci.x: must match"),
    "a hook's key in the file": ("apps:\n", "hooks: {ci: {apps: [web], environments: [dev], actions: [set-image], key: hunter2}}\napps:\n", '12: unknown key "key"'),
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_belongs_to_the_rules_is_checked_wherever_it_stands(name: str, file: Path) -> None:
    """Rules of an app, and the parts of the file that rules lean on, are named with their lines too."""
    old, new, says = ELSEWHERE[name]
    assert TEXT.count(old) == 1, old
    found = wrong(file, TEXT.replace(old, new))
    assert any(line.startswith(says) for line in found), found
    assert "hunter2" not in "".join(found)


def test_one_mistake_is_told_once_whatever_the_number_of_apps(file: Path) -> None:
    """A rule that no app's first environment can keep is one line, not one for each app."""
    assert len(wrong(file, TEXT.replace("policies:\n", "policies:\n  dev: {soak: 1h}\n"))) == 1


@pytest.mark.parametrize(
    "off", [("soak: 1h", "soak: 0s"), (f"checks: [{{name: a, reporters: [{AMY}]}}]", "checks: []"), ("parity: required", "parity: ignored")]
)  # fmt: skip
def test_an_app_without_an_environment_before_says_that_it_does_without(
    off: tuple[str, str], file: Path
) -> None:
    """An app that begins in prod is named, and is right as soon as it takes the rule off itself; the others keep it."""
    rule, without = off
    text = with_rules(rule).replace("acme/job\n", "acme/job\n    environments: {prod: {}}\n")
    [line] = wrong(file, text)
    assert f"job has no environment before prod; say {without} in apps.job.policies.prod" in line
    found = targets_of(file, text.replace("acme/job\n", f"acme/job\n    policies: {{prod: {{{without}}}}}\n"))
    assert found["job/prod"].policy == targets_of(file, TEXT)["web/prod"].policy != found["web/prod"].policy


@pytest.mark.parametrize(
    ("source", "registries", "authors", "says"),
    [
        (False, True, "", "Add source, with the url"),
        (True, False, "", "Add its image's registry to registries"),
        (True, True, "", None),
        (False, False, ", unknown_authors: allow", None),
    ],
)
def test_authors_must_be_knowable_where_they_may_not_approve(
    source: bool, registries: bool, authors: str, says: str | None, file: Path
) -> None:
    """It takes the source and the image's labels; or the word that unknown authors do not matter."""
    approvals = f"approvals: {{rules: [{{users: [{AMY}]}}], commit_authors: false{authors}}}"
    text = with_rules("", web=approvals)
    if source:
        text = text.replace("acme/web\n", "acme/web\n    source: {url: 'https://git.example.com/web'}\n")
    if registries:
        text += "registries: {ghcr.io: {}}\n"
    if says is None:
        assert not targets_of(file, text)["web/prod"].policy.commit_authors
    else:
        [line] = wrong(file, text)
        assert says in line


def test_a_denied_person_may_stand_in_a_rule(file: Path) -> None:
    """It is no mistake as long as enough others are left, by name or in a group."""
    policy = prod(file, f"  deny: {{users: [{AMY}]}}")
    assert policy.users == {BEN}
    group = TEXT.replace(
        f"[{{users: [{AMY}, {BEN}], min: 1}}]", f"[{{users: [{AMY}], group: {SRE}, min: 2}}]"
    )
    assert targets_of(file, group + f"      deny: {{users: [{AMY}]}}\n")["web/prod"].policy.total == 2


@pytest.mark.parametrize("actions", ["['check:*']", "['check:api']"])
def test_a_check_may_be_a_hooks_alone(actions: str, file: Path) -> None:
    """With a hook that reports it, its name is enough."""
    hooks = f"hooks: {{ci: {{apps: ['*'], environments: [stage], actions: {actions}}}}}\n"
    policy = targets_of(file, with_rules("checks: [api]") + hooks)["web/prod"].policy
    assert policy.checks == (CheckRule(name="api"),)


CRON_PARTS = st.one_of(
    st.sampled_from(
        ["*", "*/5", "0", "1-5", "FRI", "MON-FRI", "L", "LW", "5L", "1#2", "JAN", "1,15", "*/70"]
    ),
    st.text(alphabet="0123456789*/-,#LWMONFRI", max_size=4),
)


@given(st.lists(CRON_PARTS, min_size=4, max_size=6).map(" ".join), st.sampled_from(["UTC", "Europe/Berlin"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_cron_line_of_the_file_can_be_read_at_the_gate(cron: str, zone: str) -> None:
    """Of five fields or not, sense or nonsense: what the check of the file takes closes no gate as unreadable."""
    try:
        cron = checked_cron(cron)
    except ValueError:
        return
    window = Window(effect=Effect.DENY, zone=zone, cron=cron, lasts=timedelta(hours=1))
    CronCalendar().hours((window,), datetime(2026, 3, 1, tzinfo=UTC))


@given(st.text(max_size=30))
def test_a_text_with_a_grammar_is_itself_or_refused(text: str) -> None:
    """No text whatever breaks the check of a zone, an address or a query in another way."""
    for check in (checked_zone, lambda url: checked_address(url, allow_local=False), checked_query):
        with suppress(ValueError):
            assert check(text) == text


@pytest.mark.parametrize(
    ("url", "allow_local"),
    [
        ("https://prom.example.com", False),
        ("https://{app}-{environment}.example.com:8443/v1/{version}?d={digest}&x=%20", False),
        ("http://127.0.0.1:9090/", False),
        ("http://[::1]:9090/", False),
        ("http://prometheus.monitoring:9090", True),
    ],
)
def test_usual_addresses_of_probes_are_accepted(url: str, allow_local: bool) -> None:
    """With a port, placeholders and a query, on this machine, and in a cluster for those who say so."""
    assert checked_address(url, allow_local=allow_local) == url


@pytest.mark.parametrize(
    "url",
    [
        "https://{digest}.example.com/",
        "https://a/x/../y",
        "https://a/#x",
        "https://a/b c",
        "https://a\\@b/",
        "https://",
        "//a/b",
    ],
)
def test_an_address_that_may_mean_another_host_is_refused(url: str) -> None:
    """What a version, a dot or a blank could lead elsewhere is no address of a probe."""
    with pytest.raises(ValueError, match="url "):
        checked_address(url, allow_local=True)


@pytest.mark.parametrize(
    "query", ["""up{a='{app}'}""", """up{a='"{app}"'}""", "up{a=`{app}`}", 'up # "{app}"']
)
def test_a_placeholder_outside_of_double_quotes_is_refused(query: str) -> None:
    """There its value could be more than a value."""
    with pytest.raises(ValueError, match="must stand inside of double quotes"):
        checked_query(query)


# --- the documentation


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each example of the documentation, and what it says."""
    for found in re.finditer(r"```yaml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL):
        yield found[1], YAML(typ="safe", pure=True).load(found[1])


def test_every_example_of_the_documentation_is_right(file: Path) -> None:
    """All together, each at its place, they make a file that loads."""
    raw = YAML(typ="safe", pure=True).load(TEXT.replace("web", "manual-app"))
    for _, said in examples():
        for key, value in said.items():
            if key in PolicyModel.model_fields:
                raw["policies"]["prod"][key] = value
            elif key == "apps":
                raw["apps"]["manual-app"] |= value["manual-app"]
            else:
                raw[key] = raw.get(key, {}) | value
    raw["apps"]["job"]["source"] = {"url": "https://git.example.com/acme/job.git"}
    written = io.StringIO()
    YAML().dump(raw, written)
    policy = targets_of(file, written.getvalue())["manual-app/prod"].policy
    assert policy.emergency
    assert len(policy.windows) == 3


def test_every_rule_is_documented_with_an_example() -> None:
    """No key of a policy, of approvals or of an app's part in it is missing."""
    shown = "\n".join(text for text, _ in examples()) + DOCUMENT.read_text("utf-8")
    keys = {*PolicyModel.model_fields, *ApprovalsModel.model_fields} - {"self_"}
    keys |= {"self", "source", "same_image", "expected_differences", "identities", "hooks", "audit"}
    assert {key for key in keys if f"{key}:" not in shown and f"`{key}`" not in shown} == set()
    assert {"source", "same_image"} <= set(AppModel.model_fields)
    assert len(DOCUMENT.read_text("utf-8").splitlines()) <= 120


def test_every_policy_of_the_core_can_be_written() -> None:
    """What the core can hold has its place in the file: no rule exists that nobody can set."""
    written = {
        "approvals": {
            "rules": [{"group": SRE}],
            "expires": "1h",
            "deny": {"users": [AMY]},
            "commit_authors": False,
            "unknown_authors": "allow",
            "last_requester": False,
            "notify": [AMY],
        },
        "soak": "1h",
        "checks": ["api"],
        "probes": [{"name": "a", "url": "https://a"}],
        "parity": "required",
        "windows": [{"deny": "* * * * *", "for": "1h", "zone": "UTC"}],
        "waits": "1h",
        "requesters": [AMY],
        "lockers": [AMY],
        "rollback": {"who": [AMY]},
        "emergency": {"who": [AMY], "skips": ["order"]},
    }
    found, plain = policy_of(configured(written, {}), "web", "prod"), Policy()
    same = {name for name in Policy.__dataclass_fields__ if getattr(found, name) == getattr(plain, name)}
    assert same == {"start_within"}  # the bot's own patience after an approval
