"""Signatures of commits, held against ssh-keygen and git themselves."""

import os
import re
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from conftest import require
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.integrations.signing import MAKE_ONE, CommitSigner

WHO = "promote-bot <promote-bot@acme.example> 1770000000 +0000"
IDENTITY = {"NAME": "promote-bot", "EMAIL": "promote-bot@acme.example", "DATE": "1770000000 +0000"}
ROOM = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}
KINDS = {"ed25519": ["-t", "ed25519"], "rsa": ["-t", "rsa", "-b", "2048"]}
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def generate(path: Path, *options: str, passphrase: str = "") -> Path:
    """A new key of ssh-keygen; the public half stands beside it."""
    keygen = require("ssh-keygen", "openssh-client")
    subprocess.run(
        [keygen, "-q", "-N", passphrase, "-C", "promote-bot", *options, "-f", path], check=True, env=ROOM
    )
    return path


def keygen(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    """What ssh-keygen answers."""
    done = subprocess.run(["ssh-keygen", *arguments], input=stdin, capture_output=True, check=True, env=ROOM)
    return done.stdout


@pytest.fixture(scope="module", params=sorted(KINDS))
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a private key; each test runs with both kinds."""
    return generate(tmp_path_factory.mktemp("keys") / request.param, *KINDS[request.param])


@pytest.fixture(scope="module")
def signer(key: Path) -> CommitSigner:
    return CommitSigner.load(key)


class Repository:
    """A repository that trusts one key and holds one tree."""

    def __init__(self, folder: Path, key: Path) -> None:
        self.folder = folder
        self.key = key
        self.git("init", "-q", "-b", "main")
        self.tree = self.git("mktree").decode().strip()
        signers = folder / "allowed_signers"
        public = key.with_suffix(".pub").read_text()
        signers.write_text(f'promote-bot@acme.example namespaces="git" {public}')
        self.git("config", "gpg.ssh.allowedSignersFile", str(signers))
        self.git("config", "gpg.format", "ssh")

    def git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = self.attempt(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def attempt(self, *arguments: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env=ROOM | more,
            input=stdin,
            capture_output=True,
            check=False,
        )

    def commit(self, message: bytes) -> bytes:
        """A raw commit object without a signature."""
        return f"tree {self.tree}\nauthor {WHO}\ncommitter {WHO}\n\n".encode() + message

    def store(self, commit: bytes) -> str:
        """Store an object as it is, also one that makes no sense."""
        return (
            self.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=commit)
            .decode()
            .strip()
        )

    def accepts(self, commit: bytes) -> bool:
        """Does git itself find the signature good?"""
        return self.attempt("verify-commit", self.store(commit)).returncode == 0


@pytest.fixture(scope="module")
def repository(key: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("repository"), key)


@FEW
@given(payload=st.binary(max_size=300))
def test_a_signature_is_the_one_that_ssh_keygen_makes(
    key: Path, signer: CommitSigner, payload: bytes
) -> None:
    """Byte for byte, for whatever is signed: so everybody who knows ssh's signatures knows ours."""
    theirs = keygen("-Y", "sign", "-n", "git", "-f", key, stdin=payload)
    assert signer.sign(payload).encode() == theirs


def test_the_public_key_and_its_fingerprint_are_the_ones_of_ssh_keygen(
    key: Path, signer: CommitSigner
) -> None:
    """What people compare with the git host's settings reads the same there."""
    algorithm, blob, _ = key.with_suffix(".pub").read_text().split()
    assert signer.public_key == f"{algorithm} {blob}"
    assert signer.fingerprint == keygen("-l", "-f", key).decode().split()[1]


@pytest.mark.parametrize(
    "message", ["Promote manual-app\n\nWhy: INC-42\n", "", "ümläut\n\n\n", "gpgsig no\n"]
)
def test_a_signed_commit_is_the_one_that_git_makes(
    repository: Repository, signer: CommitSigner, message: str
) -> None:
    """Git's own signed commit of the same content is the same bytes, so it has the same id."""
    who = {
        f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in IDENTITY.items()
    }
    made = repository.attempt(
        "commit-tree", f"-S{repository.key}", repository.tree, stdin=message.encode(), **who
    )
    theirs = repository.git("cat-file", "commit", made.stdout.decode().strip())
    assert signer.signed(repository.commit(message.encode())) == theirs


def test_git_accepts_a_signed_commit(tmp_path: Path, key: Path, signer: CommitSigner) -> None:
    """`git verify-commit` names the signer and `git fsck --strict` has nothing to complain of."""
    repository = Repository(tmp_path, key)
    revision = repository.store(signer.signed(repository.commit(b"Promote manual-app to v15\n")))
    repository.git("update-ref", "refs/heads/main", revision)
    verified = repository.attempt("verify-commit", revision)
    assert verified.returncode == 0
    assert b'Good "git" signature for promote-bot@acme.example' in verified.stderr
    assert signer.fingerprint.encode() in verified.stderr
    checked = repository.attempt("fsck", "--strict", "--no-dangling")
    assert (checked.returncode, checked.stderr) == (0, b"")


@FEW
@given(data=st.data())
def test_a_changed_byte_breaks_the_signature(
    repository: Repository, signer: CommitSigner, data: st.DataObject
) -> None:
    """Whichever byte of the commit is another one afterwards, git no longer accepts it."""
    commit = repository.commit(b"Promote manual-app to v15\n\nApproved-By: Dana\n")
    place = data.draw(st.integers(0, len(commit) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != commit[place]))
    changed = commit[:place] + bytes([byte]) + commit[place + 1 :]
    headers, blank, message = signer.signed(commit).partition(b"\n\n")
    header = headers[headers.index(b"\ngpgsig ") :]
    split = len(headers) - len(header)
    assert repository.accepts(changed[:split] + header + changed[split:]) is False
    assert repository.accepts(commit[:split] + header + blank + message) is True


@given(message=st.binary(max_size=100))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_commit_gets_the_same_signature(key: Path, signer: CommitSigner, message: bytes) -> None:
    """A commit that is made again has the same id: nothing random is in a signature."""
    commit = b"tree 4b825dc\n\n" + message
    assert signer.signed(commit) == signer.signed(commit) == CommitSigner.load(key).signed(commit)


def test_a_key_in_pem_signs_as_well(tmp_path: Path) -> None:
    """What ssh-keygen writes with `-m PEM` is read too."""
    path = generate(tmp_path / "pem", "-t", "rsa", "-b", "2048", "-m", "PEM")
    assert path.read_text().startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert CommitSigner.load(path).public_key == " ".join(path.with_suffix(".pub").read_text().split()[:2])


def refusal(path: Path) -> str:
    """Why a file is no key to sign with; the sentence and its causes repeat nothing of the file."""
    with pytest.raises(ValueError, match=r".") as caught:
        CommitSigner.load(path)
    error: BaseException | None = caught.value
    content = path.read_text(errors="replace") if path.is_file() else ""
    while error is not None:
        for line in re.findall(r"[A-Za-z0-9+/=]{16,}", content):
            assert line not in f"{error!s} {error!r}"
        error = error.__cause__ or error.__context__
    return str(caught.value)


def test_a_missing_file_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    """Whoever set up signing without a key reads how to make one."""
    assert refusal(tmp_path / "none") == (
        f"The signing key {tmp_path}/none cannot be read: No such file or directory. {MAKE_ONE}"
    )
    assert "cannot be read: Is a directory." in refusal(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\xff\xfe\0",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAsecretsecret\n",
    ],
)
def test_a_file_without_a_private_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, something else, or cut off: it is said, and nothing of it is repeated."""
    path = tmp_path / "key"
    path.write_bytes(content)
    assert refusal(path) == f"{path} holds no private key. {MAKE_ONE}"


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    """A key with a changed byte in the middle never signs."""
    path = generate(tmp_path / "key", "-t", "ed25519")
    lines = path.read_text().splitlines()
    lines[3] = lines[3][::-1]
    path.write_text("\n".join(lines))
    assert refusal(path).startswith(f"{path} holds no private key.")


@pytest.mark.parametrize("form", ["ssh", "RFC4716", "PEM"])
def test_a_public_key_is_refused(tmp_path: Path, form: str) -> None:
    """The most common mistake has its own sentence."""
    path = generate(tmp_path / "key", "-t", "rsa", "-b", "2048").with_suffix(".pub")
    if form != "ssh":
        path.write_bytes(keygen("-e", "-m", form, "-f", path))
    assert refusal(path) == f"{path} holds a public key. Name the file of its private key, without “.pub”."


@pytest.mark.parametrize(
    "options",
    [["-t", "ed25519", "-a", "1"], ["-t", "rsa", "-m", "PEM"], ["-t", "ecdsa", "-m", "PKCS8"]],
    ids=["openssh", "pem", "pkcs8"],
)
def test_a_key_with_a_passphrase_is_refused(tmp_path: Path, options: list[str]) -> None:
    """Nobody is there who could type it."""
    path = generate(tmp_path / "key", *options, passphrase="correct horse")
    assert refusal(path) == f"The key in {path} has a passphrase; it must have none. {MAKE_ONE}"


@pytest.mark.parametrize("options", [["-t", "ecdsa"], ["-t", "ecdsa", "-m", "PEM"]], ids=["openssh", "pem"])
def test_a_key_that_never_signs_twice_alike_is_refused(tmp_path: Path, options: list[str]) -> None:
    """ECDSA takes a new random number each time, so a commit that is made again would get another id."""
    path = generate(tmp_path / "key", *options)
    assert refusal(path) == (
        f"The key in {path} is of a kind that cannot be used: "
        f"only Ed25519 and RSA sign alike each time. {MAKE_ONE}"
    )


def test_an_ecdsa_key_in_a_form_that_is_not_read_is_refused(tmp_path: Path) -> None:
    """Its point may be compressed, which nothing here can read."""
    path = generate(tmp_path / "key", "-t", "ecdsa")
    begin, *lines, end = path.read_bytes().splitlines()
    blob = b64decode(b"".join(lines)).replace(b"nistp256\0\0\0\x41\x04", b"nistp256\0\0\0\x41\x02")
    path.write_bytes(b"\n".join([begin, b64encode(blob), end]))
    assert "only Ed25519 and RSA sign alike each time." in refusal(path)


def test_a_dsa_key_is_refused(tmp_path: Path) -> None:
    """DSA signs differently each time, like ECDSA."""
    path = tmp_path / "key"
    made = dsa.generate_private_key(1024)
    path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "only Ed25519 and RSA sign alike each time." in refusal(path)


def test_a_key_that_lives_in_a_device_is_refused(tmp_path: Path) -> None:
    """The file of a security key holds no key, only the way to the device, which nobody would touch."""
    kind = strings(b"sk-ssh-ed25519@openssh.com")
    public = kind + strings(b"\1" * 32, b"ssh:")
    private = bytes(8) + public + b"\1" + strings(b"handle", b"", b"comment")
    private += bytes(range(1, 9))[: -len(private) % 8]
    blob = (
        b"openssh-key-v1\0"
        + strings(b"none", b"none", b"")
        + (1).to_bytes(4, "big")
        + strings(public, private)
    )
    path = tmp_path / "key"
    path.write_bytes(
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + b64encode(blob) + b"\n-----END OPENSSH PRIVATE KEY-----\n"
    )
    path.chmod(0o600)
    assert b"(ED25519-SK)" in keygen("-l", "-f", path)
    assert "only Ed25519 and RSA sign alike each time." in refusal(path)


def strings(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "big") + value for value in values)


def test_an_rsa_key_that_ssh_finds_too_short_is_refused(tmp_path: Path) -> None:
    """What ssh-keygen would not verify is not signed either."""
    path = tmp_path / "key"
    openssl = require("openssl", "openssl")
    subprocess.run([openssl, "genrsa", "-out", path, "1023"], check=True, capture_output=True)
    assert refusal(path) == f"The RSA key in {path} has only 1023 bits. {MAKE_ONE}"


def test_a_key_in_place_of_its_path_is_not_repeated(key: Path) -> None:
    """Whoever put the key itself into the setting must not find it in a log."""
    with pytest.raises(ValueError, match="must be the path of a file") as caught:
        CommitSigner.load(Path(key.read_text()))
    assert "PRIVATE KEY" not in repr(caught.value)


def test_a_signer_shows_only_its_fingerprint(signer: CommitSigner) -> None:
    """What may end in a log names the key and holds nothing of it."""
    assert repr(signer) == f"CommitSigner({signer.fingerprint})"
