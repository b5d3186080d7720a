"""What is known of the rules in force, in Redis or Valkey: one key, changed by whoever has read its last edition."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from bot.core.errors import Unavailable
from bot.core.guarding import Page
from bot.integrations import scripts
from bot.integrations.redis_address import Client
from bot.integrations.redis_trouble import SYSTEM, ask

RULES = "{gp}:rules"

# KEYS: the page. ARGV: the page as JSON, its edition. Returns whether the page is this one now.
# It may run twice, because an answer can be lost on its way: what is there already counts as changed.
CHANGE = """
local found = redis.call('GET', KEYS[1])
if found == ARGV[1] then return 1 end
local edition = found and cjson.decode(found).edition or 0
if edition ~= ARGV[2] - 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

_PAGE: TypeAdapter[Page] = TypeAdapter(Page)


class RedisRulebook:
    """The core's `Rulebook`, wherever `connect` leads. Every method may raise `Unavailable`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def read(self) -> Page | None:
        """The page; None where nobody has written one. One that cannot be read raises `Unavailable`."""
        try:
            found: Any = await ask(self._client, lambda: self._client.get(RULES))
            return None if found is None else _PAGE.validate_json(found, strict=True)
        except (UnicodeDecodeError, ValidationError) as error:
            raise Unavailable(
                SYSTEM,
                f"what it holds in {RULES} cannot be read; delete it, and the rules are written down anew",
            ) from error

    async def change(self, page: Page) -> bool:
        """Put it in the place of the edition before; False where somebody else has changed that since."""
        words = (_PAGE.dump_json(page).decode(), page.edition)
        changed: Any = await ask(
            self._client,
            lambda: scripts.run(self._client, CHANGE, keys=[RULES], args=words),
            writes=True,
        )
        return bool(changed)
