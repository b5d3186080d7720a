"""Secrets come from the environment or from files named there, and are shown to nobody."""

import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import require

from bot.settings import Settings, SettingsError

SECRET = "a secret of the tests"


def settings(**environ: str) -> Settings:
    """Settings with nothing else around them."""
    return Settings(environ=environ)


def test_a_setting_comes_from_the_environment() -> None:
    """A set value is taken as it is; an empty one counts as not set."""
    assert settings(PROMOTE_SECRET=SECRET).get("PROMOTE_SECRET") == SECRET
    assert settings(PROMOTE_SECRET="").get("PROMOTE_SECRET") is None
    assert settings().get("PROMOTE_SECRET") is None


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    """`<NAME>_FILE` names it, without the line break that editors and Kubernetes leave at its end."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    assert settings(PROMOTE_SECRET_FILE=str(file)).get("PROMOTE_SECRET") == SECRET
    assert settings(PROMOTE_SECRET_FILE=str(file), PROMOTE_SECRET="direct").get("PROMOTE_SECRET") == "direct"
    file.write_text("\n", encoding="utf-8")
    assert settings(PROMOTE_SECRET_FILE=str(file)).get("PROMOTE_SECRET") is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00secret"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    """A file that is not there, or is no text, stops the start with its name and not with a traceback."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"PROMOTE_SECRET_FILE: cannot read {file}: ") as refused:
        settings(PROMOTE_SECRET_FILE=str(file)).get("PROMOTE_SECRET")
    assert "xff" not in str(refused.value)


def test_what_must_be_set_says_why() -> None:
    """The sentence names the setting, what it is for, and both ways to give it."""
    with pytest.raises(SettingsError) as refused:
        settings().require("PROMOTE_SECRET", "approvals are sealed with it.")
    assert str(refused.value) == (
        "PROMOTE_SECRET is not set: approvals are sealed with it. "
        "Set it, or PROMOTE_SECRET_FILE to a file that holds it."
    )
    assert settings(PROMOTE_SECRET=SECRET).require("PROMOTE_SECRET", "") == SECRET


def test_each_repository_and_server_may_have_its_own_token(tmp_path: Path) -> None:
    """`GIT_TOKEN_GITOPS` comes before `GIT_TOKEN`; dots and dashes of a name become underscores."""
    file = tmp_path / "token"
    file.write_text("from a file", encoding="utf-8")
    found = settings(
        GIT_TOKEN="common", GIT_TOKEN_GITOPS="own", GIT_TOKEN_MY_REPO_2="dotted", GIT_TOKEN_FAR_FILE=str(file)
    )
    assert found.named("GIT_TOKEN", "gitops") == "own"
    assert found.named("GIT_TOKEN", "my-repo.2") == "dotted"
    assert found.named("GIT_TOKEN", "far") == "from a file"
    assert found.named("GIT_TOKEN", "other") == "common"
    assert settings().named("GIT_TOKEN", "other") is None


def test_a_key_file_is_named_the_same_way(tmp_path: Path) -> None:
    """`GIT_SSH_KEY_GITOPS` comes before `GIT_SSH_KEY`."""
    common, own = tmp_path / "common", tmp_path / "own"
    common.touch()
    own.touch()
    found = settings(GIT_SSH_KEY=str(common), GIT_SSH_KEY_GITOPS=str(own))
    assert found.path("GIT_SSH_KEY", "gitops") == own
    assert found.path("GIT_SSH_KEY", "other") == common
    assert settings().path("GIT_SSH_KEY", "other") is None


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Git would only say that it could not read from the remote repository."""
    with pytest.raises(SettingsError, match=r"GIT_SSH_KEY: .* is not a file that can be read"):
        settings(GIT_SSH_KEY=str(tmp_path / "nowhere")).path("GIT_SSH_KEY", "gitops")


def test_a_key_in_place_of_its_file_is_not_repeated() -> None:
    """Somebody has pasted the key itself: it is a secret, and the sentence does not show it."""
    with pytest.raises(SettingsError) as refusal:
        Settings(environ={"GIT_SSH_KEY": "-----BEGIN KEY-----\nc2VjcmV0\n"}).path("GIT_SSH_KEY", "gitops")
    assert "path of a file" in str(refusal.value)
    assert "c2VjcmV0" not in str(refusal.value)


@pytest.mark.parametrize("name", ["SLACK_CLIENT_ID", "SLACK_CLIENT_SECRET"])
def test_settings_that_turn_on_oauth_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With them Bolt would drop the bot's token and say so in one log line only."""
    monkeypatch.setenv(name, "1234.5678")
    with pytest.raises(SettingsError, match="SLACK_CLIENT_ID and SLACK_CLIENT_SECRET must not be set"):
        Settings.from_environment()


def test_the_process_says_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_environment` keeps what is set now; later changes of the environment are not seen."""
    monkeypatch.delenv("SLACK_CLIENT_ID", raising=False)
    monkeypatch.delenv("SLACK_CLIENT_SECRET", raising=False)
    monkeypatch.setenv("PROMOTE_SECRET", SECRET)
    found = Settings.from_environment()
    monkeypatch.setenv("PROMOTE_SECRET", "changed later")
    assert found.get("PROMOTE_SECRET") == SECRET


def test_no_secret_is_shown_by_accident() -> None:
    """A log line or a traceback that shows the settings shows nothing of them."""
    found = settings(PROMOTE_SECRET=SECRET, SLACK_BOT_TOKEN="xoxb-1")
    assert SECRET not in f"{found!r} {found} {[found]}"
    assert "xoxb" not in f"{found!r} {found} {[found]}"


def test_the_redactor_is_told_every_secret(tmp_path: Path) -> None:
    """Tokens, secrets, passwords, the store's address and proxies, also those in files; addresses of files are not."""
    file = tmp_path / "token"
    file.write_text("token in a file", encoding="utf-8")
    found = settings(
        PROMOTE_SECRET=SECRET,
        SLACK_BOT_TOKEN="xoxb-1",
        ARGOCD_TOKEN_MAIN="argo",
        GIT_TOKEN_FILE=str(file),
        DB_PASSWORD="pass",
        REDIS_URL="redis://:pw@host",
        https_proxy="http://user:pw@proxy",
        PROMOTE_CONFIG="promote.yaml",
        PORT="3000",
    ).secrets
    assert sorted(found) == sorted(
        [SECRET, "xoxb-1", "argo", "token in a file", "pass", "redis://:pw@host", "http://user:pw@proxy"]
    )


def test_the_redactor_leaves_the_machines_own_settings_alone() -> None:
    """A token file of another tool that nobody may read stops no start, and `NO_PROXY` is no secret."""
    found = settings(
        AWS_WEB_IDENTITY_TOKEN_FILE="/nonexistent/token", NO_PROXY="localhost", no_proxy="localhost"
    )
    assert found.secrets == []


def test_ports_and_places_have_defaults() -> None:
    """Nothing has to be set for them; what is set wins."""
    bare = settings()
    assert (bare.port, bare.operations_port(9090), bare.host) == (3000, 9090, "0.0.0.0")
    assert bare.config_path == Path("promote.yaml")
    assert bare.data_dir == Path.home() / ".local" / "state" / "promote-bot"
    assert settings(XDG_STATE_HOME="/state").data_dir == Path("/state/promote-bot")
    full = settings(PORT="80", OPERATIONS_PORT="81", HOST="::1", PROMOTE_CONFIG="/c", PROMOTE_DATA_DIR="/d")
    assert (full.port, full.operations_port(9090), full.host) == (80, 81, "::1")
    assert (full.config_path, full.data_dir) == (Path("/c"), Path("/d"))


@pytest.mark.parametrize("text", ["http", "-1", "3000.5", "", "３000 "])
def test_a_port_is_a_number(text: str) -> None:
    """Anything else is named with the setting."""
    with pytest.raises(SettingsError, match="PORT must be a number"):
        _ = settings(PORT=text).port


def test_proxies_are_found_in_both_spellings() -> None:
    """`HTTPS_PROXY` and `https_proxy`, as every tool reads them; what is not set is left out."""
    upper = settings(HTTPS_PROXY="http://proxy:3128", NO_PROXY=".example.com").proxies
    assert upper == {"https_proxy": "http://proxy:3128", "no_proxy": ".example.com"}
    both = settings(https_proxy="http://lower", HTTPS_PROXY="http://upper", http_proxy="").proxies
    assert both == {"https_proxy": "http://lower"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority of our own."""
    folder = tmp_path_factory.mktemp("authority")
    words = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    words += ["-subj", "/CN=Tests", "-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")]
    subprocess.run([require("openssl", "openssl"), *words], check=True, capture_output=True)
    return folder / "ca.pem"


def common_names(context: ssl.SSLContext) -> set[str]:
    """Whom the context trusts, of those that were loaded already."""
    subjects = [dict(part[0] for part in each["subject"]) for each in context.get_ca_certs()]
    return {subject.get("commonName", "") for subject in subjects}


def test_an_own_authority_is_trusted_beside_the_machines(authority: Path) -> None:
    """PROMOTE_CA_BUNDLE adds to the machine's authorities; servers still have to prove their name."""
    found = settings(PROMOTE_CA_BUNDLE=str(authority))
    assert found.ca_bundle == authority
    context = found.tls()
    assert common_names(context) - common_names(settings().tls()) == {"Tests"}
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_without_an_own_authority_the_machines_are_trusted() -> None:
    """Nothing has to be set for servers with usual certificates."""
    assert settings().ca_bundle is None
    assert settings().tls().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("content", [None, "no certificate at all"])
def test_a_bundle_that_holds_nothing_is_named(tmp_path: Path, content: str | None) -> None:
    """A missing or wrong file stops the start: nobody goes on with less trust than was meant, or more."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=f"PROMOTE_CA_BUNDLE: {file} holds no certificates"):
        settings(PROMOTE_CA_BUNDLE=str(file)).tls()


def test_the_store_s_replicas_and_its_memory_are_numbers() -> None:
    """None has to confirm, and what ended is kept for ninety days, unless somebody says otherwise."""
    assert (settings().wait_replicas, settings().allow_plain) == (0, False)
    assert settings().keep == timedelta(days=90)
    told = settings(REDIS_WAIT_REPLICAS="1", REDIS_ALLOW_PLAIN="1", PROMOTE_KEEP_DAYS="7")
    assert (told.wait_replicas, told.allow_plain, told.keep) == (1, True, timedelta(days=7))
    for name, text in (("REDIS_WAIT_REPLICAS", "-1"), ("PROMOTE_KEEP_DAYS", "2")):
        with pytest.raises(SettingsError, match=f"{name} must be a number from"):
            _ = (settings(**{name: text}).wait_replicas, settings(**{name: text}).keep)


def test_the_archive_lies_in_the_data_folder(tmp_path: Path) -> None:
    """Unless it has a place of its own."""
    assert settings(PROMOTE_DATA_DIR=str(tmp_path)).archive == tmp_path / "archive.jsonl"
    assert settings(PROMOTE_ARCHIVE="/var/x.jsonl").archive == Path("/var/x.jsonl")
