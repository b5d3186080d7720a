"""What is told of its own accord: a build that can go, a tag that was pushed anew, a lock that still stands."""

from __future__ import annotations

from bot.core.gates import span
from bot.core.keeper import typed
from bot.core.policy import Gate
from bot.core.readiness import Ready
from bot.core.reminding import Standing
from bot.core.rereading import PushedAnew
from bot.messages.mrkdwn import Block, Message, code, cut, escape, full_stop, moment, plain, section, words

ASK_FOR = "ask_for"
"""The action of the button; its value is `app environment version`."""


def ready(found: Ready) -> Message:
    """A build that can go, with a button that asks for it."""
    target, version = found.target, found.image.version
    proofs = _proofs(found)
    told = f": {', '.join(proofs)}." if proofs else "."
    text = (
        f":white_check_mark: *{escape(target.app)}* {code(version)} is ready for "
        f"*{escape(target.environment)}*{told}"
    )
    return Message(text=text, blocks=(section(text), {"type": "actions", "elements": [_button(found)]}))


def pushed_anew(news: PushedAnew) -> Message:
    """A tag that names another build than the one that is live under it."""
    target = news.target
    text = (
        f":rotating_light: The tag {code(news.was.version)} of {code(target.image, 200)} was pushed anew. "
        f"*{escape(target.app)}* in *{escape(target.environment)}* was deployed with {code(news.was.digest)}, and the "
        f"registry has {code(news.now.digest)} under this tag now.\n"
        "A pod that starts anew may run the other build. Find out who pushed it; give the new build a version of its "
        "own, and promote that."
    )
    return _plainly(text)


def standing(news: Standing) -> Message:
    """A lock that stands for a day or more, or that is over."""
    lock = news.lock
    place, since, why = f"*{escape(str(lock.scope))}*", moment(lock.at), full_stop(plain(lock.reason, 500))
    if news.is_over:
        return _plainly(
            f":unlock: Your lock on {place}, put up {since}, is over: {why} Promotions may go there again."
        )
    until = f"until {moment(lock.until)}" if lock.until else "until somebody unlocks it"
    unlock = code(f"/promote unlock {typed(lock.scope)}", 300)
    return _plainly(
        f":lock: You locked {place} {since}, and it stands {until}: {why}\n"
        f"Is it over? Then type {unlock} so that others can go on."
    )


def _plainly(text: str) -> Message:
    return Message(text=text, blocks=(section(text),))


def _proofs(found: Ready) -> list[str]:
    """What has opened: `checks 4/4`, `soak 24 h`."""
    policy = found.target.policy
    answered = [answer.gate for answer in found.answers.each if answer.is_open]
    counts = (
        ("checks", answered.count(Gate.CHECKS), len(policy.checks)),
        ("probes", answered.count(Gate.PROBES), len(policy.probes)),
    )
    proofs = [f"{name} {passed}/{wanted}" for name, passed, wanted in counts if wanted]
    if policy.soak:
        proofs.append(f"soak {span(policy.soak)}")
    if policy.windows:
        proofs.append("the window is open")
    return proofs


def _button(found: Ready) -> Block:
    target = found.target
    label = f"Ask for {target.environment}"
    return ask_for(target.app, target.environment, found.image.version, label=label)


def ask_for(app: str, environment: str, version: str, *, label: str) -> Block:
    """The button that asks for a version as if it were typed."""
    return {
        "type": "button",
        "action_id": ASK_FOR,
        "text": words(cut(label, 75)),
        "accessibility_label": cut(f"{label}: {app} {version}", 75),
        "value": f"{app} {environment} {version}",
        "style": "primary",
    }
