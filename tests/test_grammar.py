"""What people type after `/promote`, and what it is understood as."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.config import RESERVED
from bot.core.board import Scope
from bot.core.errors import Refused
from handlers.grammar import (
    VERBS,
    VERDICTS,
    Block,
    Can,
    Check,
    Diff,
    History,
    Lock,
    Request,
    Rollback,
    Stats,
    Unblock,
    Unlock,
    Verb,
    Wish,
    meant,
    parse,
)

ID = "P-7F3KQ0V9XZ"
TO_PROD = Request(app="manual-app", environment="prod")
FIFTEEN = Request(app="manual-app", environment="prod", version="15")
BACK = Rollback(app="manual-app", environment="prod")
BACK_TO_13 = Rollback(app="manual-app", environment="prod", version="13")
PROD = Scope(environment="prod")
APP_IN_PROD = Scope(app="manual-app", environment="prod")
HISTORY = History(app="manual-app")
PASSED = Check(app="manual-app", version="15", name="integration", passed=True)
BACK_BECAUSE = Rollback(app="manual-app", environment="prod", version="13", reason="15 is slow")


def because(reason: str, *, version: str | None = None) -> Request:
    """A request with a reason."""
    return Request(app="manual-app", environment="prod", version=version, reason=reason)


UNDERSTOOD = {
    "manual-app prod": TO_PROD,
    "  manual-app \t prod  ": TO_PROD,
    "manual-app to prod": TO_PROD,
    "manual-app TO prod": TO_PROD,
    "manual-app 15 prod": FIFTEEN,
    "manual-app 15 to prod": FIFTEEN,
    "manual-app v1.4.2 to prod": Request(app="manual-app", environment="prod", version="v1.4.2"),
    "payload-api 15 to prod": Request(app="payload-api", environment="prod", version="15"),
    # quotes and dashes as phones write them
    '“manual-app” ‘15’ to "prod"': FIFTEEN,
    "manual–app 15 to prod": FIFTEEN,
    "manual—app 15 to prod": FIFTEEN,
    "manual-app 15 to prod — because fixes INC-42": because("fixes INC-42", version="15"),
    # characters that nobody sees
    "\u200bmanual-app\u200b 15\ufeff prod\u2060": FIFTEEN,
    "manual-app\u00a015\u2003prod": FIFTEEN,
    # reasons
    "manual-app prod because fixes INC-42": because("fixes INC-42"),
    "manual-app 15 to prod because fixes INC-42": because("fixes INC-42", version="15"),
    "manual-app prod BECAUSE it is Friday": because("it is Friday"),
    "manual-app prod Because\nit is Friday": because("it is Friday"),
    "manual-app prod because because I can": because("because I can"),
    "manual-app prod because of the “sale” – really": because("of the “sale” – really"),
    "manual-app prod because": TO_PROD,
    "manual-app prod because   ": TO_PROD,
    # options
    "manual-app prod --when-open": replace(TO_PROD, waits=True),
    "manual-app 15 to prod --replace": replace(FIFTEEN, replaces=True),
    "--replace --when-open manual-app prod": replace(TO_PROD, waits=True, replaces=True),
    "manual-app prod —when-open": replace(TO_PROD, waits=True),
    "manual-app prod –When-Open — because it can wait": replace(because("it can wait"), waits=True),
    "manual-app 15 to prod --emergency INC-42 because it burns": replace(
        because("it burns", version="15"), incident="INC-42"
    ),
    "manual-app --emergency “INC-42” prod": replace(TO_PROD, incident="INC-42"),
    "manual-app prod because of --force": because("of --force"),
    # rollbacks
    "rollback manual-app prod": BACK,
    "ROLLBACK manual-app prod": BACK,
    "“rollback” ‘manual-app’ prod": BACK,
    "rollback manual-app prod 13": BACK_TO_13,
    "rollback manual-app prod to 13": BACK_TO_13,
    "rollback manual-app prod TO 13": BACK_TO_13,
    "rollback manual-app prod to 13 because 15 is slow": BACK_BECAUSE,
    "rollback manual-app prod to 13 — because 15 is slow": BACK_BECAUSE,
    "rollback manual-app prod – because": BACK,
    "rollback manual-app prod because to be sure": Rollback(
        app="manual-app", environment="prod", reason="to be sure"
    ),
    # verbs
    "": Verb(name="help"),
    "   \u200b ": Verb(name="help"),
    "help": Verb(name="help"),
    "HELP me": Verb(name="help"),
    "pending": Verb(name="pending"),
    "status": Verb(name="status"),
    "status manual-app": Verb(name="status", text="manual-app"),
    "status “manual-app”": Verb(name="status", text="manual-app"),
    f"show {ID}": Verb(name="show", id=ID),
    f"Show {ID.lower()}": Verb(name="show", id=ID),
    f"approve {ID}": Verb(name="approve", id=ID),
    f"APPROVE  {ID.lower()}": Verb(name="approve", id=ID),
    f"approve “{ID}”": Verb(name="approve", id=ID),
    f"approve {ID.replace('-', '–')}": Verb(name="approve", id=ID),
    f"approve {ID.replace('-', '—')}": Verb(name="approve", id=ID),
    f"withdraw {ID}": Verb(name="withdraw", id=ID),
    f"reject {ID} wrong branch": Verb(name="reject", id=ID, text="wrong branch"),
    f"reject {ID}": Verb(name="reject", id=ID),
    f"reject {ID} because wrong branch": Verb(name="reject", id=ID, text="wrong branch"),
    f"review {ID}": Verb(name="review", id=ID),
    f"Review {ID.lower()} because the fix was right": Verb(name="review", id=ID, text="the fix was right"),
    f"review {ID} because": Verb(name="review", id=ID),
    f"cancel {ID}": Verb(name="cancel", id=ID),
    f"cancel {ID} not today": Verb(name="cancel", id=ID, text="not today"),
    "locks": Verb(name="locks"),
    "windows": Verb(name="windows"),
    "Windows “prod”": Verb(name="windows", text="prod"),
    # locks
    "lock all because a fire": Lock(scope=Scope(), reason="a fire"),
    "LOCK ALL Because a fire": Lock(scope=Scope(), reason="a fire"),
    "lock prod because a sale": Lock(scope=PROD, reason="a sale"),
    "lock manual-app prod because a sale": Lock(scope=APP_IN_PROD, reason="a sale"),
    "lock manual–app ‘prod’ — because a sale": Lock(scope=APP_IN_PROD, reason="a sale"),
    "lock prod for 2h because a sale": Lock(scope=PROD, term="for 2h", reason="a sale"),
    "lock all until tomorrow 09:00 because a sale": Lock(
        scope=Scope(), term="until tomorrow 09:00", reason="a sale"
    ),
    "lock prod until 2026–03–02T18:00Z because a sale": Lock(
        scope=PROD, term="until 2026-03-02T18:00Z", reason="a sale"
    ),
    "lock prod because wait for 2h until 18:00": Lock(scope=PROD, reason="wait for 2h until 18:00"),
    "lock prod": Lock(scope=PROD),
    "lock prod until": Lock(scope=PROD, term="until"),
    "unlock all": Unlock(scope=Scope()),
    "unlock prod because it is over": Unlock(scope=PROD, reason="it is over"),
    "unlock manual-app prod": Unlock(scope=APP_IN_PROD),
    # bad versions and verdicts
    "block manual-app 15 because it is slow": Block(app="manual-app", version="15", reason="it is slow"),
    "block manual-app 15": Block(app="manual-app", version="15"),
    "unblock manual-app 15": Unblock(app="manual-app", version="15"),
    "unblock manual-app 15 because it was not": Unblock(app="manual-app", version="15"),
    "check manual-app 15 integration pass": PASSED,
    "check manual-app 15 integration PASSED": PASSED,
    "check manual-app 15 integration pass in stage": replace(PASSED, environment="stage"),
    "check manual-app 15 integration fail IN stage because 3 of 9 failed": replace(
        PASSED, passed=False, environment="stage", reason="3 of 9 failed"
    ),
    "check in 15 in failed": Check(app="in", version="15", name="in", passed=False),
    # questions about what nobody has asked for yet
    "can manual-app prod": Can(app="manual-app", environment="prod"),
    "can manual-app to prod": Can(app="manual-app", environment="prod"),
    "can manual-app 15 to prod": Can(app="manual-app", environment="prod", version="15"),
    "can manual-app 15 prod because I wonder": Can(app="manual-app", environment="prod", version="15"),
    "diff manual-app prod": Diff(app="manual-app", environment="prod"),
    "DIFF manual-app 15 prod": Diff(app="manual-app", environment="prod", version="15"),
    # what was
    "history manual-app": HISTORY,
    "HISTORY “manual–app” prod": replace(HISTORY, environment="prod"),
    "history manual-app since 7d": replace(HISTORY, since="7d"),
    "history manual-app prod SINCE 2026–11–01 until 2026-11-05 18:00Z": replace(
        HISTORY, environment="prod", since="2026-11-01", until="2026-11-05 18:00Z"
    ),
    "history manual-app by U0DANADEV01 since 24 h": replace(HISTORY, by="U0DANADEV01", since="24 h"),
    "history manual-app by <@U0DANADEV01>": replace(HISTORY, by="U0DANADEV01"),
    "history manual-app by <@W0DANADEV01|dana ortiz> until 1d": replace(
        HISTORY, by="W0DANADEV01", until="1d"
    ),
    "history manual-app by @dana": replace(HISTORY, by="@dana"),
    "history manual-app prod by ci": replace(HISTORY, environment="prod", by="ci"),
    "history manual-app since 7d since 8d": replace(HISTORY, since="7d since 8d"),
    "stats": Stats(),
    "Stats manual-app": Stats(app="manual-app"),
    "stats manual-app “prod”": Stats(app="manual-app", environment="prod"),
    "stats since 30d": Stats(since="30d"),
    "stats manual-app prod since 2026-11-01": Stats(app="manual-app", environment="prod", since="2026-11-01"),
}

REFUSED = {
    # the sentence, and what its answer has to say
    "manual-app": "To which environment? Type /promote manual-app <environment>",
    "sttaus": "Did you mean “status”?",
    "satts": "Did you mean “stats”?",
    "pendign": "Did you mean “pending”?",
    "HLEP": "Did you mean “help”?",
    f"aprove {ID}": "Did you mean “approve”?",
    f"rejekt {ID.lower()} no": "Did you mean “reject”?",
    f"frobnicate {ID}": "There is: show, approve, reject, withdraw, cancel, review.",
    "approve": "Type /promote approve P-…",
    "approve 15": "Type /promote approve P-…",
    "approve P-7F3KQ0V9X": "Type /promote approve P-…",
    "approve P-7F3KQ0V9XU": "Type /promote approve P-…",
    "approve P-7F3KQ0V9X\u212a": "Type /promote approve P-…",
    "show manual-app": "Type /promote show P-…",
    "manual-app 15 to prod fixes INC-42": "a reason begins with because",
    "manual-app 1 5 prod now": "a version has no spaces",
    "manual-app 15 prod --dry-run": "I do not understand “--dry-run”",
    "manual-app 15 prod --when-opne": "I do not understand “--when-opne”. Did you mean “--when-open”?",
    "manual-app 15 prod -replcae because x": "Did you mean “--replace”?",
    "manual-app 15 prod —yolo INC-42": "There is: --when-open, --replace, --emergency. Nothing was done.",
    "--force manual-app 15 prod": "I do not understand “--force”.",
    "--when-open": "I do not understand --when-open",
    "manual-app prod --emergency": "Which incident?",
    "manual-app prod --emergency because it burns": "Which incident?",
    "manual-app prod --emergency --replace": "Which incident?",
    "manual-app prod --emergency INC-42 --when-open": "An emergency waits for nothing and goes first",
    "manual-app prod --replace --emergency INC-42": "An emergency waits for nothing and goes first",
    "rollback manual-app prod --when-open": "“--when-open” here: only a request has options",
    "lock prod --force because x": "“--force” here: only a request has options",
    "can manual-app prod --emergency INC-42": "“--emergency” here: only a request has options",
    f"review {ID[:-1]}": "Type /promote review P-…",
    "“”": "I do not understand",
    "rollback": "Type /promote rollback <app> <environment> [to <version>]",
    "rollback manual-app": "Type /promote rollback <app> <environment> [to <version>]",
    "rollback because it is slow": "Type /promote rollback <app> <environment> [to <version>]",
    "rollback manual-app to prod": "Type /promote rollback <app> <environment> [to <version>]",
    "rollback manual-app prod to": "Type /promote rollback <app> <environment> [to <version>]",
    "rollback manual-app prod to 13 now": "Type /promote rollback <app> <environment> [to <version>]",
    "rolback manual-app prod to 13": "Did you mean “rollback”?",
    "roll back manual-app prod": "Did you mean “rollback”?",
    "Roll-back manual-app prod to 13 because 15 is slow": "Did you mean “rollback”?",
    "because x y z": "I do not understand",
    "lock": "Type /promote lock (<app> <environment> | <environment> | all) [for 2h | until 18:00] because",
    "lock because a fire": "Type /promote lock (<app>",
    "lock for 2h because a fire": "Type /promote lock (<app>",
    "lock prod a sale": "Type /promote lock (<app>",
    "unlock": "Type /promote unlock (<app>",
    "unlock manual-app to prod": "Type /promote unlock (<app>",
    "block manual-app because it is slow": "Type /promote block <app> <version> because",
    "block manual-app 15 slow": "Type /promote block <app> <version> because",
    "unblock 15": "Type /promote unblock <app> <version>",
    "check manual-app 15 pass": "Type /promote check <app> <version> <name> pass|fail",
    "check manual-app 15 integration maybe": "Type /promote check <app> <version> <name> pass|fail",
    "check manual-app 15 integration pass stage": "Type /promote check <app> <version> <name> pass|fail",
    "check manual-app 15 integration pass in": "Type /promote check <app> <version> <name> pass|fail",
    "check manual-app 15 integration pass at stage": "Type /promote check <app> <version> <name> pass|fail",
    "can": "Type /promote can <app> [version] [to] <environment>.",
    "can manual-app": "Type /promote can <app> [version] [to] <environment>.",
    "can to prod": "Type /promote can <app> [version] [to] <environment>.",
    "Diff manual-app 15 to prod now": "Type /promote diff <app> [version] [to] <environment>.",
    "diff manual-app to to prod": "Type /promote diff <app> [version] [to] <environment>.",
    "history": "Type /promote history <app> [environment] [since 7d | since 2026-11-01] [until …] [by me | by <name or Slack id>].",
    "history since 7d": "Type /promote history <app> [environment]",
    "history manual-app prod 15": "Type /promote history <app> [environment]",
    "history manual-app since": "Type /promote history <app> [environment]",
    "history manual-app since until 7d": "Type /promote history <app> [environment]",
    "history manual-app by": "Type /promote history <app> [environment]",
    "history manual-app --csv": "“--csv” here: only a request has options",
    "histroy manual-app since 7d": "Did you mean “history”?",
    "stats manual-app prod 15": "Type /promote stats [app] [environment] [since 7d | since 2026-11-01].",
    "stats since": "Type /promote stats [app] [environment]",
    "stats manual-app prod by U0DANADEV01": "Type /promote stats",
    "un lock prod now please": "Did you mean “unlock”?",
    "chekc manual-app 15 integration pass": "Did you mean “check”?",
}


@pytest.mark.parametrize("sentence", UNDERSTOOD)
def test_a_sentence_is_understood(sentence: str) -> None:
    """Each way to say it, also as phones and copied text spell it, gives the same wish."""
    assert parse(sentence) == UNDERSTOOD[sentence]


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_wrong_sentence_gets_help(sentence: str) -> None:
    """Nothing is guessed: the answer shows the nearest word, or what to type instead."""
    with pytest.raises(Refused) as refused:
        parse(sentence)
    assert REFUSED[sentence] in str(refused.value)


@pytest.mark.parametrize("verb", VERBS)
def test_no_app_can_have_a_verbs_name(verb: str) -> None:
    """A verb is never taken for an app, so `promote.yaml` refuses apps of that name."""
    assert verb in RESERVED
    assert not isinstance(_parsed(f"{verb} {ID}"), Request)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if len(verb) > 4])
@given(st.data())
def test_one_slip_of_the_finger_is_still_the_verb(verb: str, data: st.DataObject) -> None:
    """A letter that is missing, doubled or in its neighbour's place hides it at most behind a verb as near as it."""
    place = data.draw(st.integers(0, len(verb) - 2))
    before, here, after = verb[:place], verb[place], verb[place + 1 :]
    slips = [before + after, before + 2 * here + after, before + after[0] + here + after[1:]]
    for slip in slips:
        found = meant(slip)
        assert found
        assert found in (verb, slip) or one_letter_apart(found, slip), slip
        assert meant(slip, "manual-app") == found, slip


def one_letter_apart(one: str, other: str) -> bool:
    """Is one of them the other without one of its letters, as `lock` is `block` without its first?"""
    short, long = sorted((one, other), key=len)
    return any(long[:place] + long[place + 1 :] == short for place in range(len(long)))


@pytest.mark.parametrize(
    "word", ["revert", "undo", "manual-app", "payload-api", "deploy", "checkout", "windmill", "15"]
)
def test_another_word_is_no_verb(word: str) -> None:
    """To revert is not to reject: nobody is led to a verb that does something else."""
    assert meant(word) is None
    assert meant(word, "prod") is None


@given(
    st.from_regex(r"[a-z][a-z-]{0,12}", fullmatch=True).filter(
        lambda word: word not in ("when-open", "replace", "emergency")
    ),
    st.sampled_from(["--", "-", "—", "–", "----"]),
    st.integers(0, 4),
)
def test_an_option_that_nobody_knows_does_nothing(name: str, dash: str, place: int) -> None:
    """Wherever it stands before the reason, and whatever a phone makes of its dashes, it is refused by name."""
    words = ["manual-app", "15", "to", "prod"]
    words.insert(place, f"{dash}{name}")
    with pytest.raises(Refused) as refused:
        parse(" ".join([*words, "because x"]))
    assert f"“--{name}”" in str(refused.value)


def _parsed(sentence: str) -> Wish | None:
    try:
        return parse(sentence)
    except Refused:
        return None


words = st.sampled_from(
    [
        *VERBS,
        ID,
        ID.lower(),
        "manual-app",
        "15",
        "to",
        "prod",
        "all",
        "for",
        "2h",
        "until",
        "18:00",
        "in",
        "pass",
        "since",
        "by",
        "<@U0DANADEV01|dana>",
        "because",
        "--when-open",
        "--emergency",
        "INC-42",
        "“",
        "”",
        "'",
        '"',
        "—",
        "-",
        "\u200b",
    ]
)
sentences = st.one_of(
    st.text(max_size=80),
    st.lists(words, max_size=8).map(" ".join),
    st.lists(st.one_of(words, st.text(max_size=5)), max_size=8).map("".join),
)


@given(sentences)
def test_anything_typed_is_understood_or_refused(sentence: str) -> None:
    """Whatever comes, the answer is a wish with its words in place, or `Refused`: no other error."""
    wish = _parsed(sentence)
    if isinstance(wish, Request):
        assert wish.app
        assert wish.environment
        assert len(" ".join(filter(None, (wish.app, wish.version, wish.environment))).split()) in (2, 3)
        assert wish.reason is None or wish.reason.strip() == wish.reason != ""
        assert not (wish.incident and (wish.waits or wish.replaces))
        assert not any(each.startswith("--") for each in (wish.app, wish.version or "", wish.environment))
    if isinstance(wish, Rollback):
        assert wish.app
        assert wish.environment
        assert "to" not in (wish.app, wish.environment, wish.version)
    if isinstance(wish, Verb):
        assert wish.name in VERBS
        assert wish.id is None or wish.id == wish.id.upper()
    if isinstance(wish, Lock | Unlock):
        assert wish.scope.environment or not wish.scope.app, (
            "a scope is one target, one environment, or everything"
        )
    if isinstance(wish, Lock):
        assert wish.term is None or wish.term.split()[0].lower() in ("for", "until")
    if isinstance(wish, Can | Diff):
        assert wish.environment
        assert "to" not in (wish.app, wish.environment, wish.version)
    if isinstance(wish, History | Stats):
        assert wish.app or isinstance(wish, Stats)
        assert wish.app or not wish.environment
        assert "" not in (wish.app, wish.environment, wish.since)
    if isinstance(wish, Block | Unblock | Check | Can | Diff):
        assert wish.app
        assert wish.version or isinstance(wish, Can | Diff)


@given(st.text(min_size=1).filter(lambda text: text.split()))
def test_a_reason_is_kept_word_for_word(reason: str) -> None:
    """Only what nobody can see is taken out of a reason; the words are the person's own."""
    invisible = dict.fromkeys([*range(0x200B, 0x2010), 0x2060, 0xFEFF])
    kept = reason.translate(invisible).strip() or None
    for words in (
        "manual-app prod",
        "rollback manual-app prod",
        "lock prod",
        "lock prod for 2h",
        "unlock all",
        "block manual-app 15",
        "check manual-app 15 integration fail",
    ):
        wish = parse(f"{words} because {reason}")
        assert isinstance(wish, Request | Rollback | Lock | Unlock | Block | Check)
        assert wish.reason == kept


word = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,8}", fullmatch=True).filter(
    lambda word: word not in ("all", "because", "for", "until", "to", "in", "since", "by")
)


@given(
    word, word, st.sampled_from([None, "for 2h", "until tomorrow 09:00"]), st.sampled_from(["lock", "Lock"])
)
def test_what_a_lock_covers_is_what_was_named(
    app: str, environment: str, term: str | None, verb: str
) -> None:
    """One word is an environment, two are a target, `all` is everything; the term stays out of it."""
    scopes = {
        f"{app} {environment}": Scope(app=app, environment=environment),
        environment: Scope(environment=environment),
        "all": Scope(),
    }
    for words, scope in scopes.items():
        said = " ".join(filter(None, (verb, words, term, "because x")))
        assert parse(said) == Lock(scope=scope, term=term, reason="x")
        assert parse(f"un{verb.lower()} {words}") == Unlock(scope=scope)


@given(word, word, word, st.sampled_from(sorted(VERDICTS)), st.none() | word)
def test_a_verdict_is_passed_or_failed_and_nothing_else(
    app: str, version: str, name: str, verdict: str, environment: str | None
) -> None:
    """Every word stands in its place; only `pass` and `passed` say yes."""
    place = f" in {environment}" if environment else ""
    assert parse(f"check {app} {version} {name} {verdict}{place}") == Check(
        app=app,
        version=version,
        name=name,
        passed=verdict in ("pass", "passed"),
        environment=environment,
    )


@given(word, st.none() | word, st.permutations(["since", "until", "by"]), st.integers(0, 3), word, word)
def test_what_is_asked_of_the_past_may_stand_in_any_order(
    app: str, environment: str | None, names: list[str], count: int, one: str, other: str
) -> None:
    """Each word counts for what it stands behind, in whatever order, and nothing else is said."""
    said = dict(zip(names[:count], (one, other, f"{one} {other}"), strict=False))
    clauses = " ".join(f"{name} {text}" for name, text in said.items())
    sentence = " ".join(filter(None, ["history", app, environment, clauses]))
    assert parse(sentence) == History(app=app, environment=environment, **said)


@given(st.none() | word, st.none() | word, st.none() | word)
def test_numbers_are_asked_of_one_target_one_app_or_all(
    app: str | None, environment: str | None, since: str | None
) -> None:
    """An environment is one of an app's; without words everything is meant."""
    environment = environment if app else None
    sentence = " ".join(filter(None, ["stats", app, environment, since and f"since {since}"]))
    assert parse(sentence) == Stats(app=app, environment=environment, since=since)
