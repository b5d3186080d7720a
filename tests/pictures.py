"""Draw cards as the demo's page shows them: `PYTHONPATH=tests .venv/bin/python -m pictures` renews the two in docs.

With a folder as an argument, one picture of every case goes there instead.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from endings import ENDINGS, WAITING
from evidence import DRAFTS, EVERYTHING, SHOWN, STALE
from playwright.async_api import Page as Tab
from playwright.async_api import async_playwright

from bot.messages.card import card
from bot.messages.gates import closed
from bot.messages.mrkdwn import Message
from bot.playground.page import Page
from bot.playground.slack.fake import FakeSlack

CHROMIUM = "/usr/bin/chromium"
CHANNEL = "C0DEPLOYS"
DOCS = Path(__file__).parents[1] / "docs"
ON_THE_SHEET = (
    "ended, live",
    "ended, sync failed",
    "ended, degraded",
    "ended, cannot render",
    "waiting for Sync",
    "ended, timed out",
    "ended, Argo CD unreachable",
    "ended, recovered",
)
TWO_COLUMNS = """
html, body { display: block; height: auto; overflow: auto; }
.banner, #side, #world, #composer, .talk-head, .avatar { display: none !important; }
#talk { display: block; border: 0; }
#log { columns: 2; column-gap: 16px; padding: 16px; overflow: visible; background: var(--panel); }
#log > .message {
  display: block; break-inside: avoid; margin: 0 0 16px; padding: 14px 18px;
  border: 1px solid var(--line); border-radius: 10px; background: var(--card);
}
"""
"""The page's own look, but for the cards side by side and nothing around them."""


class Nowhere:
    """A world that stands still."""

    async def snapshot(self) -> dict[str, object]:
        """Nothing but the cards is in the picture."""
        return {"applications": [], "files": [], "switches": {}, "log": []}

    async def switch(self, name: str, value: object) -> str:
        """There is nothing to turn."""
        raise KeyError(name, value)


@asynccontextmanager
async def shown(
    messages: Iterable[Message], *, width: int, scale: int = 2, private: Collection[int] = ()
) -> AsyncIterator[Tab]:
    """The demo's page with these messages in a channel; `private` has the numbers of those for one person alone."""
    slack = FakeSlack(signing_secret="a-signing-secret", bot_token="xoxb-pictures")
    people = {"U0DANA": "Dana Ortiz", "U0AMY": "Amy Chen", "U0BEN": "Ben Ruiz"}
    for user, name in people.items():
        slack.add_user(user, name=user.lower(), real_name=name, email=f"{user.lower()}@example.com")
    slack.add_channel(CHANNEL, name="deploys", members=people)
    slack.add_group("S0SUPPORT", handle="support", users=people)
    for number, message in enumerate(messages):
        only_for = "U0DANA" if number in private else None
        slack.workspace.add(CHANNEL, slack.bot_user, message.text, blocks=message.blocks, only_for=only_for)
    page = Page(slack, Nowhere(), token="a-token-for-the-pictures")
    await page.start()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(
            viewport={"width": width, "height": 900},
            device_scale_factor=scale,
            timezone_id="UTC",
            reduced_motion="reduce",
            bypass_csp=True,
        )
        tab = await context.new_page()
        await tab.goto(page.address)
        await tab.locator("#log > article").first.wait_for()
        yield tab
        await browser.close()
    await page.stop()


async def draw_sheet(file: Path) -> None:
    """The endings that a newcomer should know, on one sheet."""
    cases = {**ENDINGS, **WAITING}
    await _draw([card(*cases[name]) for name in ON_THE_SHEET], file)


async def draw_cards(file: Path) -> None:
    """A card with everything on it, the answer to who asks too early, and a card that is stale."""
    await _draw([card(*EVERYTHING), closed(DRAFTS["may open"]), card(*STALE)], file, private=(1,))


async def _draw(messages: Iterable[Message], file: Path, *, private: Collection[int] = ()) -> None:
    """These messages on one sheet, in two columns."""
    async with shown(messages, width=1160, scale=1, private=private) as tab:
        await tab.add_style_tag(content=TWO_COLUMNS)
        await tab.locator("#log").screenshot(path=file, animations="disabled")


async def draw_each(folder: Path) -> None:
    """Every case alone, for those who change a card."""
    cases = {**WAITING, **ENDINGS, **SHOWN}
    folder.mkdir(parents=True, exist_ok=True)
    async with shown([card(*case) for case in cases.values()], width=620, scale=1) as tab:
        for name, article in zip(cases, await tab.locator("#log > article").all(), strict=True):
            await article.screenshot(path=folder / f"{name.replace(', ', '-').replace(' ', '-')}.png")


async def draw_docs() -> None:
    """The pictures of the documentation."""
    await draw_sheet(DOCS / "endings.png")
    await draw_cards(DOCS / "cards.png")


if __name__ == "__main__":
    asyncio.run(draw_each(Path(sys.argv[1])) if sys.argv[1:] else draw_docs())
