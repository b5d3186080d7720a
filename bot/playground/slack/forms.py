"""What a person does to Block Kit's elements: which button is pressed, and what a form then holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bot.playground.slack.blocks import Json, elements


def find_action(blocks: Sequence[Json], action_id: str, value: str | None, *, ts: str) -> Json | None:
    """What Slack sends for a press on this element, or None where there is no such element."""
    for block in blocks:
        for element in elements(block):
            if element["action_id"] == action_id and _offers(element, value):
                return _action(element, block["block_id"], value, ts)
    return None


def _offers(element: Json, value: str | None) -> bool:
    if element["type"] == "button":
        return value is None or element.get("value") == value
    options = _options(element)
    offered = {option["value"] for option in options}
    return not options or offered.issuperset(value.split(",") if value else [])


def _options(element: Json) -> list[Json]:
    groups = element.get("option_groups", [])
    return [*element.get("options", []), *(option for group in groups for option in group["options"])]


def _action(element: Json, block_id: str, value: str | None, ts: str) -> Json:
    action = {
        "type": element["type"],
        "action_id": element["action_id"],
        "block_id": block_id,
        "action_ts": ts,
    }
    if element["type"] == "button":
        sent = ("text", "value", "url", "style", "confirm")
        return action | {name: element[name] for name in sent if name in element}
    return action | entered(element, value)


def entered(element: Json, value: str | None) -> Json:
    """An element's state as Slack sends it, with what a person typed or chose."""
    kind = element["type"]
    chosen = [option for option in _options(element) if option["value"] in (value or "").split(",")]
    match kind:
        case "static_select" | "radio_buttons" | "overflow":
            return {"type": kind, "selected_option": chosen[0] if chosen else None}
        case "multi_static_select" | "checkboxes":
            return {"type": kind, "selected_options": chosen}
        case "users_select":
            return {"type": kind, "selected_user": value}
        case "multi_users_select":
            return {"type": kind, "selected_users": value.split(",") if value else []}
        case "datepicker":
            return {"type": kind, "selected_date": value}
        case "timepicker":
            return {"type": kind, "selected_time": value}
        case "datetimepicker":
            return {"type": kind, "selected_date_time": int(value) if value else None}
    return {"type": kind, "value": value or None}


def initial(element: Json) -> str | None:
    """What an input holds before anyone has touched it."""
    if "initial_option" in element:
        return str(element["initial_option"]["value"])
    if "initial_options" in element:
        return ",".join(option["value"] for option in element["initial_options"])
    for name in ("initial_value", "initial_user", "initial_date", "initial_time", "initial_date_time"):
        if name in element:
            return str(element[name])
    return ",".join(element["initial_users"]) if "initial_users" in element else None


def filled(blocks: Sequence[Json], values: Mapping[str, str | None]) -> tuple[Json, dict[str, str]]:
    """A form's state, and what the client itself would complain about, both by block_id.

    Values are found by the input's block_id or by its element's action_id.
    """
    state: Json = {}
    errors: dict[str, str] = {}
    for block in blocks:
        inputs = [part for part in elements(block) if part["type"] != "button"]
        for element in inputs:
            names = (block["block_id"], element["action_id"])
            value = next((values[name] for name in names if name in values), initial(element))
            state.setdefault(block["block_id"], {})[element["action_id"]] = entered(element, value)
            if block["type"] == "input":
                error = _complaint(block, element, value or "")
                errors |= {block["block_id"]: error} if error else {}
    return state, errors


def _complaint(block: Json, element: Json, value: str) -> str | None:
    if not value:
        return None if block.get("optional") else "Please complete this required field."
    if len(value) < element.get("min_length", 0):
        return f"Please enter at least {element['min_length']} characters."
    if len(value) > element.get("max_length", 3000):
        return f"Please enter at most {element.get('max_length', 3000)} characters."
    return None
