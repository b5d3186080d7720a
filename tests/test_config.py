"""`promote.yaml` is checked strictly: every mistake is named with file, line and what to write instead."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from bot.config import RESERVED, ConfigError, build_catalog, load
from bot.config_models import Config
from bot.core.catalog import Catalog, Target
from handlers.grammar import VERBS

EXAMPLE = Path(__file__).parents[1] / "promote.yaml"

TEXT = """\
version: 1
environments: [dev, stage, prod]
slack:
  channel: C0DEPLOYS
repositories:
  gitops:
    url: https://git.example.com/acme/manual-app-helm.git
argocd:
  main:
    url: https://argocd.example.com
defaults:
  repository: gitops
  argocd: main
  keys: [image.tag]
  values: values-{env}.yaml
  applications: ["{app}-{env}"]
apps:
  manual-app:
    image: images.example.com/acme/manual-app
policies:
  prod:
    approvals:
      rules: [{users: [U0AMYAPPROVE, U0BENAPPROVE], min: 1}]
      expires: 4h
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration of a test stands."""
    return tmp_path / "promote.yaml"


def changed(old: str, new: str) -> str:
    """The configuration with one thing changed."""
    assert TEXT.count(old) == 1, old
    return TEXT.replace(old, new)


def catalog_of(file: Path, text: str) -> Catalog:
    """The catalog that the text describes."""
    file.write_text(text, encoding="utf-8")
    return build_catalog(load(file))


def targets_of(file: Path, text: str) -> dict[str, Target]:
    """Its targets by name."""
    return {target.name: target for target in catalog_of(file, text).targets}


def wrong(file: Path, text: str) -> list[str]:
    """What is said against the text, one problem a line, each with the file's place taken off its front."""
    with pytest.raises(ConfigError) as refused:
        catalog_of(file, text)
    lines = str(refused.value).splitlines()
    assert all(line.startswith(f"{file}") for line in lines), lines
    return [line.removeprefix(f"{file}:") for line in lines]


def test_the_example_describes_the_three_environments() -> None:
    """The checked-in example loads: dev, stage and prod of `manual-app`, and only prod asks people."""
    catalog = build_catalog(load(EXAMPLE))
    assert catalog.environments == ("dev", "stage", "prod")
    found = [(each.name, each.path, each.keys, each.applications[0].name) for each in catalog.targets]
    assert found == [
        (f"manual-app/{each}", f"values-{each}.yaml", ("image.tag",), f"manual-app-{each}")
        for each in catalog.environments
    ]
    policies = {each.environment: each.policy for each in catalog.targets}
    assert not policies["dev"].needs_approval
    assert not policies["stage"].needs_approval
    assert policies["prod"].total == 1
    assert len(policies["prod"].users) == 2


MISTAKES = {
    # what is changed, into what, and what is said: line, then sentence
    "a misspelt key": (
        '  applications: ["{app}-{env}"]',
        '  aplication: ["{app}-{env}"]',
        '16: unknown key "aplication", did you mean "applications"?',
    ),
    "a misspelt key at the top": ("policies:", "polices:", '20: unknown key "polices", did you mean "policies"?'),
    "a misspelt key in a list": ("min: 1}", "mni: 1}", '23: unknown key "mni", did you mean "min"?'),
    "a misspelt key of an application": (
        '["{app}-{env}"]',
        '[{name: x, sever: main}]',
        '16: unknown key "sever", did you mean "server"?',
    ),
    "a key like no other": ("expires: 4h", "zzz: 4h", '24: unknown key "zzz"'),
    "a missing key": ("version: 1\n", "", '1: "version" is missing'),
    "a later version": ("version: 1", "version: 2", "1: version: must be 1"),
    "the same key twice": ("defaults:", "defaults: {}\ndefaults:", '12: found duplicate key "defaults"'),
    "the same environment twice": ("[dev, stage, prod]", "[dev, dev, prod]", "2: environments: one of them stands"),
    "broken YAML": ("keys: [image.tag]", "keys: [image.tag", "15: "),
    "a text instead of a list": ("keys: [image.tag]", "keys: image.tag", "14: defaults.keys: must be a list"),
    "an empty list": ("keys: [image.tag]", "keys: []", "14: defaults.keys: must not be empty"),
    "a channel by name": ("C0DEPLOYS", "'#deploys'", "4: slack.channel: '#deploys' is not a channel id. Write the id"),
    "a person by handle": ("U0AMYAPPROVE", "'@amy'", "23: policies.prod.approvals.rules.0.users.0: '@amy' is not a user id. Write the id"),
    "a person by name": ("U0AMYAPPROVE", "amy", "23: policies.prod.approvals.rules.0.users.0: 'amy' is not a user id. Write the id"),
    "a group by handle": ("users: [U0AMYAPPROVE, U0BENAPPROVE]", "group: '@sre'", "23: policies.prod.approvals.rules.0.group: '@sre' is not a user group's id. Write the id"),
    "a group among people": ("U0AMYAPPROVE", "S0SREGROUP", "23: policies.prod.approvals.rules.0.users.0: 'S0SREGROUP' is not a user id."),
    "an unknown environment of a policy": ("  prod:", "  prdo:", "21: policies.prdo: the environment 'prdo' is unknown. Did you mean “prod”?"),
    "an unknown environment of a channel": ("  channel: C0DEPLOYS", "  channel: C0DEPLOYS\n  channels: {stgae: C0DEPLOYS}", "5: slack.channels.stgae: the environment 'stgae' is unknown. Did you mean “stage”?"),
    "an unknown environment of a banner": ("manual-app:\n", "manual-app:\n    banner: {qa: Look.}\n", "19: apps.manual-app.banner.qa: the environment 'qa' is unknown. There is: dev, stage, prod."),
    "an unknown environment of an app": ("manual-app:\n", "manual-app:\n    environments:\n      dve: {}\n", "20: apps.manual-app.environments.dve: the environment 'dve' is unknown. Did you mean “dev”?"),
    "an unknown repository": ("repository: gitops", "repository: gitop", "12: defaults.repository: the repository 'gitop' is unknown. Did you mean “gitops”?"),
    "an app's unknown repository": ("manual-app:\n", "manual-app:\n    repository: other\n", "19: apps.manual-app.repository: the repository 'other' is unknown. There is: gitops."),
    "an unknown server": ("argocd: main", "argocd: mian", "13: defaults.argocd: the Argo CD server 'mian' is unknown. Did you mean “main”?"),
    "an application's unknown server": ('["{app}-{env}"]', "[{name: x, server: mian}]", "16: defaults.applications.0.server: the Argo CD server 'mian' is unknown. Did you mean “main”?"),
    "an application twice": ('["{app}-{env}"]', '["{app}-{env}", "manual-app-{env}"]', "18: apps.manual-app: dev names the application manual-app-dev of main twice"),
    "an application of two environments": ('["{app}-{env}"]', '["{app}"]', "18: apps.manual-app: stage names the application manual-app of main, as dev does; put {env} into its name"),
    "a placeholder in a project that is not one": ('["{app}-{env}"]', '[{name: "{app}-{env}", project: "{team}"}]', "16: defaults.applications.0: {team} is unknown; there is {app} and {env}"),
    "a placeholder in a namespace that is not one": ('["{app}-{env}"]', '[{name: "{app}-{env}", namespace: "{team}"}]', "16: defaults.applications.0: {team} is unknown; there is {app} and {env}"),
    "a placeholder of a server that is not one": ("https://argocd.example.com\n", "https://argocd.example.com\n    project: '{team}'\n", "9: argocd.main: {team} is unknown; there is {app} and {env}"),
    "nothing said of the repository": ("  repository: gitops\n", "", "17: apps.manual-app: dev has no repository; give it there or in defaults"),
    "a password in a repository's address": ("https://git.", "https://bob:hunter2@git.", "6: repositories.gitops: url holds a user or a password"),
    "a token in a repository's address": ("https://git.", "https://hunter2@git.", "6: repositories.gitops: url holds a user or a password"),
    "a password in an ssh address": ("https://git.", "ssh://git:hunter2@git.", "6: repositories.gitops: url holds a user or a password"),
    "a password in a server's address": ("https://argocd.", "https://bob:hunter2@argocd.", "10: argocd.main.url: it holds a user or a password"),
    "a plain http repository": ("https://git.", "http://git.", "6: repositories.gitops: url is not encrypted"),
    "a local repository": ("https://git.example.com", "file://", "6: repositories.gitops: url is not encrypted"),
    "a repository by path": ("https://git.example.com", "", "6: repositories.gitops: url must begin with https://"),
    "a server without a scheme": ("https://argocd.", "argocd.", "10: argocd.main.url: must begin with https://"),
    "an image with a tag": ("acme/manual-app\n", "acme/manual-app:15\n", "19: apps.manual-app.image: must match"),
    "an app that is a verb": ("manual-app:\n", "approve:\n", "18: apps: 'approve' is a word of /promote or an environment"),
    "an app that is an environment": ("manual-app:\n", "prod:\n", "18: apps: 'prod' is a word of /promote or an environment"),
    "a duration in words": ("4h", "4 hours", "24: policies.prod.approvals.expires: must be a number with a unit, like 30s, 20m, 4h or 7d"),
    "a duration without a unit": ("4h", "14400", "24: policies.prod.approvals.expires: must be a number with a unit"),
    "nobody who may approve": ("users: [U0AMYAPPROVE, U0BENAPPROVE]", "users: []", "23: policies.prod.approvals.rules.0: the rule names nobody"),
    "a rule that nobody can meet": ("min: 1}", "min: 3}", "23: policies.prod.approvals.rules.0: min is 3, but only 2 people are named"),
    "a total that nobody can reach": ("expires: 4h", "total: 3", "22: policies.prod.approvals: total is 3, but only 2 people are named"),
    "no approval at all": ("min: 1}", "min: 0}", "23: policies.prod.approvals.rules.0.min: "),
    "a placeholder that is not one": ("values-{env}", "values-{enviroment}", "15: defaults.values: {enviroment} is unknown"),
    "a server without encryption": ("https://argocd.", "http://argocd.", "9: argocd.main: url is not encrypted"),
    "approving oneself": ("expires: 4h", "self: true", "24: policies.prod.approvals.self: must be false: nobody approves their own request"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_line(name: str, file: Path) -> None:
    """Each kind of mistake gives file and line, the nearest match or the rule, and never the secret in it."""
    old, new, says = MISTAKES[name]
    found = wrong(file, changed(old, new))
    assert any(line.startswith(says) for line in found), found
    assert "hunter2" not in "".join(found)


def test_every_mistake_is_named_at_once(file: Path) -> None:
    """Somebody who made three mistakes does not have to try three times."""
    text = changed("expires: 4h", "expires: soon").replace("C0DEPLOYS", "deploys").replace("keys:", "kyes:")
    assert len(wrong(file, text)) == 3


def test_one_mistake_in_a_list_is_one_line(file: Path) -> None:
    """A wrong entry does not also make its list “too short”, or of the wrong kind."""
    assert len(wrong(file, changed('["{app}-{env}"]', "[{name: x, sever: main}]"))) == 1
    assert len(wrong(file, changed("U0AMYAPPROVE", "amy"))) == 1


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list\n"])
def test_a_file_that_is_no_mapping_is_told_what_belongs_there(file: Path, text: str) -> None:
    """An empty or quite different file gets the list of keys that it needs, and of no others."""
    says = wrong(file, text)[0]
    assert says.startswith("1: must hold the keys version, environments, slack, repositories, argocd, apps;")


def test_a_missing_file_says_how_to_name_it(file: Path) -> None:
    """The place comes from PROMOTE_CONFIG."""
    with pytest.raises(ConfigError, match=r"promote\.yaml: No such file.*PROMOTE_CONFIG"):
        load(file)


@pytest.mark.parametrize("url", ["file:///srv/git/x.git", "http://git.example.com/x.git"])
def test_local_addresses_are_for_those_who_say_so(file: Path, url: str) -> None:
    """`allow_local: true` admits what a test or a demo needs."""
    text = changed("https://git.example.com/acme/manual-app-helm.git", f"{url}\n    allow_local: true")
    assert targets_of(file, text)["manual-app/dev"].repository.url == url


@pytest.mark.parametrize(
    "url", ["git@git.example.com:acme/x.git", "ssh://git@git.example.com:2222/acme/x.git", "https://h/x@y"]
)
def test_usual_addresses_are_accepted(file: Path, url: str) -> None:
    """Ssh in both spellings, a user without a password there, and an @ in a path."""
    text = changed("https://git.example.com/acme/manual-app-helm.git", url)
    assert targets_of(file, text)["manual-app/dev"].repository.url == url


@pytest.mark.parametrize(
    "image", ["manual-app", "acme/manual-app", "images.example.com:5000/acme/manual-app", "localhost:5000/x"]
)
def test_an_image_may_name_a_port_but_no_tag(file: Path, image: str) -> None:
    """The colon of a registry's port is not the colon of a tag."""
    text = changed("images.example.com/acme/manual-app", image)
    assert targets_of(file, text)["manual-app/dev"].image == image


@pytest.mark.parametrize("verb", VERBS)
def test_the_words_of_the_command_are_reserved(verb: str) -> None:
    """An app of a verb's name could never be promoted."""
    assert verb in RESERVED


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("90s", timedelta(seconds=90)),
        ("20m", timedelta(minutes=20)),
        ("4h", timedelta(hours=4)),
        ("7d", timedelta(days=7)),
    ],
)
def test_a_duration_is_a_number_with_a_unit(file: Path, text: str, means: timedelta) -> None:
    """Seconds, minutes, hours and days."""
    found = targets_of(file, changed("4h", text))
    assert found["manual-app/prod"].policy.expires == means


def test_patterns_take_the_app_and_the_environment(file: Path) -> None:
    """Two hundred apps take two hundred short entries: `{app}` and `{env}` stand for the names everywhere."""
    text = changed("values-{env}.yaml", "apps/{app}/{env}.yaml").replace(
        "apps:\n", "apps:\n  other:\n    image: other\n"
    )
    found = targets_of(file, text)
    assert list(found) == [
        f"{app}/{env}" for app in ("other", "manual-app") for env in ("dev", "stage", "prod")
    ]
    assert found["other/stage"].path == "apps/other/stage.yaml"
    assert found["other/stage"].applications[0].name == "other-stage"


PRECISE = """\
apps:
  manual-app:
    image: manual-app
    values: app-{env}.yaml
    channel: C0OFTHEAPP
    environments:
      dev: {values: special.yaml, channel: C0OFTHEPLACE, keys: [a.tag, b.tag]}
      prod:
"""


def test_the_nearest_word_wins(file: Path) -> None:
    """What an environment of an app says comes before the app, and the app before the defaults."""
    text = TEXT[: TEXT.index("apps:")] + PRECISE.replace("prod:\n", "prod: {}\n")
    found = targets_of(file, text)
    assert list(found) == ["manual-app/dev", "manual-app/prod"]
    dev, prod = found.values()
    assert (dev.path, dev.channel, dev.keys) == ("special.yaml", "C0OFTHEPLACE", ("a.tag", "b.tag"))
    assert (prod.path, prod.channel, prod.keys) == ("app-prod.yaml", "C0OFTHEAPP", ("image.tag",))
    assert dev.repository.name == prod.repository.name == "gitops"


def test_a_channel_of_the_environment_comes_before_the_common_one(file: Path) -> None:
    """Cards of prod may go elsewhere; an app's own channel comes before both."""
    text = changed("  channel: C0DEPLOYS", "  channel: C0DEPLOYS\n  channels: {prod: C0PRODONLY}")
    found = targets_of(file, text)
    assert [each.channel for each in found.values()] == ["C0DEPLOYS", "C0DEPLOYS", "C0PRODONLY"]
    own = targets_of(file, text.replace("manual-app:\n", "manual-app:\n    channel: C0OFTHEAPP\n"))
    assert {each.channel for each in own.values()} == {"C0OFTHEAPP"}


def test_an_application_may_be_described_in_full(file: Path) -> None:
    """Server, project and namespace of an application come before the server's own; the link fits them."""
    text = changed(
        '["{app}-{env}"]', '["{app}-{env}", {name: "{app}-x-{env}", server: far, project: p, namespace: n}]'
    )
    text = text.replace(
        "defaults:", "  far:\n    url: https://far.example.com/argo/\n    project: q\ndefaults:"
    )
    near, far = targets_of(file, text)["manual-app/dev"].applications
    assert (near.name, near.server, near.project, near.namespace) == (
        "manual-app-dev",
        "main",
        "default",
        None,
    )
    assert near.link == "https://argocd.example.com/applications/manual-app-dev"
    assert (far.name, far.server, far.project, far.namespace) == ("manual-app-x-dev", "far", "p", "n")
    assert far.link == "https://far.example.com/argo/applications/n/manual-app-x-dev"


def test_project_and_namespace_take_the_app_and_the_environment(file: Path) -> None:
    """A project for each app, or a namespace for each environment, is said once for all of them."""
    place = "url: https://argocd.example.com\n    project: '{app}'\n    namespace: team-{env}"
    found = targets_of(file, changed("url: https://argocd.example.com", place))
    seen = [(each.project, each.namespace) for target in found.values() for each in target.applications]
    assert seen == [("manual-app", f"team-{environment}") for environment in ("dev", "stage", "prod")]
    own = '[{name: "{app}-{env}", project: "p-{env}", namespace: "n-{app}"}]'
    found = targets_of(file, changed('["{app}-{env}"]', own))
    prod = found["manual-app/prod"].applications[0]
    assert (prod.project, prod.namespace) == ("p-prod", "n-manual-app")


@pytest.mark.parametrize(
    "entries",
    [
        '["{app}-{env}", {name: "{app}-{env}", server: far}]',
        '["{app}-{env}", {name: "{app}-{env}", namespace: n}]',
        '[{name: "{app}", namespace: "{env}"}]',
    ],
)
def test_the_same_name_elsewhere_is_another_application(file: Path, entries: str) -> None:
    """On another server, or in another namespace."""
    text = changed('["{app}-{env}"]', entries).replace(
        "defaults:", "  far:\n    url: https://far.example.com\ndefaults:"
    )
    keys = [each.key for target in targets_of(file, text).values() for each in target.applications]
    assert len(set(keys)) == len(keys)


def test_two_apps_may_share_an_application(file: Path) -> None:
    """One application often renders several images, each at a key of its own."""
    text = changed('["{app}-{env}"]', '["shop-{env}"]').replace(
        "apps:\n", "apps:\n  other:\n    image: other\n    keys: [other.tag]\n"
    )
    found = targets_of(file, text)
    assert found["other/prod"].applications == found["manual-app/prod"].applications


def test_digests_and_anchors_are_an_explicit_wish(file: Path) -> None:
    """Without a word about them there are none; a digest's key belongs to one target as a version's does."""
    plain = targets_of(file, TEXT)["manual-app/prod"]
    assert (plain.digests, plain.edit_anchors) == ((), False)
    wish = "keys: [image.tag]\n  digests: [image.digest]\n  edit_anchors: true"
    wished = targets_of(file, changed("keys: [image.tag]", wish))["manual-app/prod"]
    assert (wished.digests, wished.edit_anchors) == (("image.digest",), True)


def test_the_policy_is_as_it_was_written(file: Path) -> None:
    """Rules, minimum, total and time to decide; without a total, each rule needs people of its own."""
    rules = "rules: [{users: [U0AMYAPPROVE, U0BENAPPROVE], min: 2}, {group: S0SREGROUP}]"
    text = changed("rules: [{users: [U0AMYAPPROVE, U0BENAPPROVE], min: 1}]", rules)
    policy = targets_of(file, text)["manual-app/prod"].policy
    assert [rule.minimum for rule in policy.rules] == [2, 1]
    assert policy.users == {"U0AMYAPPROVE", "U0BENAPPROVE"}
    assert policy.groups == {"S0SREGROUP"}
    assert policy.total == 3
    lower = text.replace("expires: 4h", "total: 1")
    assert targets_of(file, lower)["manual-app/prod"].policy.total == 2
    assert targets_of(file, text.replace("expires: 4h", "total: 5"))["manual-app/prod"].policy.total == 5


def test_the_rollouts_patience_is_as_it_was_written(file: Path) -> None:
    """Each of the four times can be set for an environment; what is not set keeps its default."""
    text = changed("    approvals:", "    rollout: {timeout: 1h, degraded_grace: 5s}\n    approvals:")
    rollout = targets_of(file, text)["manual-app/prod"].rollout
    assert (rollout.timeout, rollout.degraded_grace) == (timedelta(hours=1), timedelta(seconds=5))
    assert (rollout.stable_for, rollout.pick_up_within) == (timedelta(seconds=10), timedelta(minutes=10))


def test_the_banner_belongs_to_its_environment(file: Path) -> None:
    """A warning for prod does not stand on stage's cards."""
    found = targets_of(file, changed("manual-app:\n", "manual-app:\n    banner: {prod: Look twice.}\n"))
    assert [each.banner for each in found.values()] == [None, None, "Look twice."]


def test_the_catalogs_fingerprint_follows_the_file(file: Path) -> None:
    """Two replicas with different files can tell; comments and order of keys make no difference."""
    first = catalog_of(file, TEXT).fingerprint
    assert catalog_of(file, f"# a comment\n{TEXT}").fingerprint == first
    assert catalog_of(file, changed("4h", "5h")).fingerprint != first


def test_the_schema_is_printed_as_the_model_says() -> None:
    """`python -m bot schema` prints what pydantic knows, and every reference in it leads somewhere."""
    printed = subprocess.run(
        [sys.executable, "-m", "bot", "schema"], capture_output=True, check=True, text=True
    )
    schema = json.loads(printed.stdout)
    assert schema == Config.model_json_schema()
    references = set(_references(schema))
    assert references
    assert references <= {f"#/$defs/{name}" for name in schema["$defs"]}
    assert set(schema["required"]) <= set(schema["properties"])
    for name, definition in {**schema["$defs"], "Config": schema}.items():
        assert definition["additionalProperties"] is False, name
        assert definition["description"], name


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [found for inner in node.values() for found in _references(inner)]
    if isinstance(node, list):
        return [found for inner in node for found in _references(inner)]
    return []
