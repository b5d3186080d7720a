"""Block Kit's rules as Slack enforces them: shapes, lengths, counts and unique ids.

The rules are data: a table says which properties an object may have and what each of them must be, and one
function walks it. Sources are Slack's reference pages for blocks, block elements, composition objects and views.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

Json = dict[str, Any]
Rule = Callable[[Any, str], Iterator[str]]

MESSAGE, MODAL, HOME = "message", "modal", "home"
MAX_BLOCKS = {MESSAGE: 50, MODAL: 100, HOME: 100}
MAX_VIEW_BYTES = 250_000


def problems(blocks: object, surface: str, *, at: str = "/blocks") -> list[str]:
    """What Slack would say against these blocks, in its own form; an empty list means they are accepted."""
    if not isinstance(blocks, list):
        return [_error("must provide an array", at)]
    found = list(_count(blocks, at, 0 if surface == MESSAGE else 1, MAX_BLOCKS[surface]))
    for number, block in enumerate(blocks):
        found += _block(block, f"{at}/{number}", surface)
    found += _unique(blocks, at)
    tables = sum(1 for block in blocks if isinstance(block, dict) and block.get("type") == "table")
    if tables > 1:
        found.append(_error("only_one_table_allowed", at))
    return found


def view_problems(view: object, *, home: bool) -> list[str]:
    """What Slack would say against a modal or a Home tab."""
    if not isinstance(view, dict):
        return [_error("must provide an object", "/view")]
    found = list(_object(view, "/view", _HOME_VIEW if home else _MODAL_VIEW))
    found += problems(view.get("blocks"), HOME if home else MODAL, at="/view/blocks")
    if len(json.dumps(view)) > MAX_VIEW_BYTES:
        found.append(_error("view is larger than 250 kB", "/view"))
    kept = view.get("blocks")
    inputs = isinstance(kept, list) and any(isinstance(b, dict) and b.get("type") == "input" for b in kept)
    if inputs and not home and "submit" not in view:
        found.append(_error("submit is required when an input block is within blocks", "/view"))
    return found


def completed(blocks: list[Json]) -> list[Json]:
    """A copy of the blocks with the ids that Slack makes up where the sender left them out."""
    copies = deepcopy(blocks)
    for block in copies:
        block.setdefault("block_id", secrets.token_urlsafe(4))
        for element in elements(block):
            if element.get("type") in _ELEMENTS:
                element.setdefault("action_id", secrets.token_urlsafe(4))
    return copies


def elements(block: Json) -> list[Json]:
    """Everything in a block that may carry an action_id."""
    parts = [*block.get("elements", []), block.get("accessory"), block.get("element")]
    return [part for part in parts if isinstance(part, dict) and part.get("type") in _ELEMENTS]


def _error(message: str, at: str) -> str:
    return f"[ERROR] {message} [json-pointer:{at}]"


def _block(block: object, at: str, surface: str) -> Iterator[str]:
    kind = block.get("type") if isinstance(block, dict) else None
    rules = _BLOCKS.get(kind) if isinstance(kind, str) else None
    if rules is None or not isinstance(block, dict):
        yield _error(f"unsupported type: {kind}", at)
        return
    if kind in _ONLY_IN and surface not in _ONLY_IN[str(kind)]:
        yield _error(f"{kind} blocks are not supported in a {surface}", at)
    yield from _object(block, at, rules)
    if kind == "section" and not (block.get("text") or block.get("fields")):
        yield _error("must define either `text` or `fields`", at)
    if kind == "table":
        for row, cells in enumerate(block.get("rows") or []):
            yield from _array(_any, least=1, most=20)(cells, f"{at}/rows/{row}")


def _unique(blocks: list[object], at: str) -> Iterator[str]:
    seen: set[object] = set()
    for number, block in enumerate(blocks):
        if not isinstance(block, dict):
            continue
        name = block.get("block_id")
        if name is not None and name in seen:
            yield _error(f'`block_id` "{name}" already exists', f"{at}/{number}/block_id")
        seen.add(name)
        actions = [part["action_id"] for part in elements(block) if "action_id" in part]
        for twice in sorted({str(name) for name in actions if actions.count(name) > 1}):
            yield _error(f'`action_id` "{twice}" already exists for another element', f"{at}/{number}")


def _object(value: object, at: str, rules: dict[str, Rule]) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _error("must provide an object", at)
        return
    known = {name.rstrip("!"): (rule, name.endswith("!")) for name, rule in rules.items()}
    for name in value:
        if name != "type" and name not in known:
            yield _error(f"invalid additional property: {name}", at)
    for name, (rule, required) in known.items():
        if name in value:
            yield from rule(value[name], f"{at}/{name}")
        elif required:
            yield _error(f"missing required field: {name}", at)


def _any(_value: object, _at: str) -> Iterator[str]:
    yield from ()


def _flag(value: object, at: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield _error("must be a boolean", at)


def _number(least: int, most: int) -> Rule:
    def check(value: object, at: str) -> Iterator[str]:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            yield _error(f"must be a number from {least} to {most}", at)

    return check


def _string(most: int, least: int = 1) -> Rule:
    def check(value: object, at: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield _error("must be a string", at)
        elif len(value) < least:
            yield _error(f"must be more than {least - 1} characters", at)
        elif len(value) > most:
            yield _error(f"must be less than {most + 1} characters", at)

    return check


def _url(value: object, at: str) -> Iterator[str]:
    yield from _string(3000)(value, at)
    if isinstance(value, str) and "://" not in value and not value.startswith("mailto:"):
        yield _error("must be a valid URL", at)


def _one_of(*choices: str) -> Rule:
    def check(value: object, at: str) -> Iterator[str]:
        if value not in choices:
            yield _error(f"must be one of: {', '.join(choices)}", at)

    return check


def _text(most: int, *kinds: str) -> Rule:
    allowed = kinds or ("plain_text", "mrkdwn")

    def check(value: object, at: str) -> Iterator[str]:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind not in allowed:
            yield _error(f"unsupported type: {kind}, expected {' or '.join(allowed)}", at)
            return
        extra: dict[str, Rule] = {"emoji": _flag} if kind == "plain_text" else {"verbatim": _flag}
        yield from _object(value, at, {"text!": _string(most), **extra})

    return check


def _count(value: list[object], at: str, least: int, most: int) -> Iterator[str]:
    if len(value) < least:
        yield _error(f"no fewer than {least} items allowed", at)
    if len(value) > most:
        yield _error(f"no more than {most} items allowed", at)


def _array(rule: Rule, *, least: int, most: int) -> Rule:
    def check(value: object, at: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield _error("must provide an array", at)
            return
        yield from _count(value, at, least, most)
        for number, item in enumerate(value):
            yield from rule(item, f"{at}/{number}")

    return check


def _shape(rules: dict[str, Rule]) -> Rule:
    return lambda value, at: _object(value, at, rules)


def _element(*kinds: str) -> Rule:
    def check(value: object, at: str) -> Iterator[str]:
        kind = value.get("type") if isinstance(value, dict) else None
        rules = _PARTS.get(kind) if kind in kinds and isinstance(kind, str) else None
        if rules is None or not isinstance(value, dict):
            yield _error(f"unsupported type: {kind}", at)
            return
        yield from _object(value, at, rules)
        if "options" in rules and ("options" in value) == ("option_groups" in value):
            yield _error("must define either `options` or `option_groups`", at)
        chosen, options = value.get("initial_option"), value.get("options")
        if chosen is not None and isinstance(options, list) and chosen not in options:
            yield _error("must match one of the options", f"{at}/initial_option")

    return check


_PLAIN = "plain_text"
_CONFIRM = _shape(
    {
        "title!": _text(100, _PLAIN),
        "text!": _text(300),
        "confirm!": _text(30, _PLAIN),
        "deny!": _text(30, _PLAIN),
        "style": _one_of("primary", "danger"),
    }
)
_OPTION = _shape(
    {
        "text!": _text(75),
        "value!": _string(150),
        "description": _text(75),
        "url": _url,
    }
)
_GROUP = _shape({"label!": _text(75, _PLAIN), "options!": _array(_OPTION, least=1, most=100)})
_COMMON: dict[str, Rule] = {"action_id": _string(255), "confirm": _CONFIRM, "focus_on_load": _flag}
_HINTED: dict[str, Rule] = {**_COMMON, "placeholder": _text(150, _PLAIN)}
_CHOICES: dict[str, Rule] = {
    "options": _array(_OPTION, least=1, most=100),
    "option_groups": _array(_GROUP, least=1, most=100),
}
_FEW: dict[str, Rule] = {"options": _array(_OPTION, least=1, most=10)}
_MANY: dict[str, Rule] = {"max_selected_items": _number(1, 1000)}
_ENTRY: dict[str, Rule] = {
    "action_id": _string(255),
    "placeholder": _text(150, _PLAIN),
    "focus_on_load": _flag,
    "initial_value": _string(3000, 0),
    "dispatch_action_config": _any,
}

_ELEMENTS: dict[str, dict[str, Rule]] = {
    "button": {
        "text!": _text(75, _PLAIN),
        "action_id": _string(255),
        "value": _string(2000),
        "url": _url,
        "style": _one_of("primary", "danger"),
        "confirm": _CONFIRM,
        "accessibility_label": _string(75),
    },
    "overflow": {
        "action_id": _string(255),
        "options!": _array(_OPTION, least=1, most=5),
        "confirm": _CONFIRM,
    },
    "static_select": {**_HINTED, **_CHOICES, "initial_option": _OPTION},
    "multi_static_select": {
        **_HINTED,
        **_CHOICES,
        **_MANY,
        "initial_options": _array(_OPTION, least=1, most=100),
    },
    "users_select": {**_HINTED, "initial_user": _string(255)},
    "multi_users_select": {**_HINTED, **_MANY, "initial_users": _array(_string(255), least=1, most=100)},
    "radio_buttons": {**_COMMON, **_FEW, "initial_option": _OPTION},
    "checkboxes": {**_COMMON, **_FEW, "initial_options": _array(_OPTION, least=1, most=10)},
    "datepicker": {**_HINTED, "initial_date": _string(10)},
    "timepicker": {**_HINTED, "initial_time": _string(5), "timezone": _string(255)},
    "datetimepicker": {**_COMMON, "initial_date_time": _number(0, 9_999_999_999)},
    "plain_text_input": {
        **_ENTRY,
        "multiline": _flag,
        "min_length": _number(0, 3000),
        "max_length": _number(1, 3000),
    },
    "url_text_input": _ENTRY,
    "email_text_input": _ENTRY,
    "number_input": {
        **_ENTRY,
        "is_decimal_allowed!": _flag,
        "min_value": _string(30),
        "max_value": _string(30),
    },
}
_IMAGE: dict[str, Rule] = {"image_url!": _url, "alt_text!": _string(2000)}
_PARTS = {**_ELEMENTS, "image": _IMAGE}
_SELECTS = ("static_select", "multi_static_select", "users_select", "multi_users_select")
_PICKERS = ("radio_buttons", "checkboxes", "datepicker", "timepicker")
_ENTRIES = ("plain_text_input", "url_text_input", "email_text_input", "number_input", "datetimepicker")


def _context_part(value: object, at: str) -> Iterator[str]:
    image = isinstance(value, dict) and value.get("type") == "image"
    yield from (_element("image") if image else _text(2000))(value, at)


_ID: dict[str, Rule] = {"block_id": _string(255)}
_BLOCKS: dict[str, dict[str, Rule]] = {
    "header": {**_ID, "text!": _text(150, _PLAIN)},
    "divider": _ID,
    "section": {
        **_ID,
        "text": _text(3000),
        "fields": _array(_text(2000), least=1, most=10),
        "accessory": _element("button", "overflow", "image", *_SELECTS, *_PICKERS),
        "expand": _flag,
    },
    "context": {**_ID, "elements!": _array(_context_part, least=1, most=10)},
    "actions": {
        **_ID,
        "elements!": _array(
            _element("button", "overflow", "datetimepicker", *_SELECTS, *_PICKERS), least=1, most=25
        ),
    },
    "input": {
        **_ID,
        "label!": _text(2000, _PLAIN),
        "element!": _element(*_ENTRIES, *_SELECTS, *_PICKERS),
        "hint": _text(2000, _PLAIN),
        "optional": _flag,
        "dispatch_action": _flag,
    },
    "image": {**_ID, **_IMAGE, "title": _text(2000, _PLAIN)},
    "rich_text": {**_ID, "elements!": _array(_any, least=1, most=1000)},
    "markdown": {**_ID, "text!": _string(12_000)},
    "table": {
        **_ID,
        "rows!": _array(_any, least=1, most=100),
        "column_settings": _array(_any, least=0, most=20),
    },
}
_ONLY_IN = {"table": (MESSAGE,), "markdown": (MESSAGE,)}
_VIEW: dict[str, Rule] = {
    "blocks!": _any,
    "private_metadata": _string(3000, 0),
    "callback_id": _string(255, 0),
    "external_id": _string(255, 0),
}
_HOME_VIEW = {**_VIEW, "type": _one_of("home")}
_MODAL_VIEW: dict[str, Rule] = {
    **_VIEW,
    "type": _one_of("modal"),
    "title!": _text(24, _PLAIN),
    "submit": _text(24, _PLAIN),
    "close": _text(24, _PLAIN),
    "clear_on_close": _flag,
    "notify_on_close": _flag,
    "submit_disabled": _flag,
}
