"""The whole flow as a person sees it: Debian's Chromium on the demo's page, with the real bot behind it.

Each test leaves pictures of its important moments in `build/screenshots`, wide and as a phone shows them.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import require
from playwright.async_api import Browser, Locator, Page, ViewportSize, async_playwright, expect

from bot.playground import page as demo_page
from bot.playground.argocd.application import Timings
from bot.playground.demo import DemoWorld
from bot.playground.repository import read_file
from bot.playground.workshop import AMY, BEN, DANA, GUS, OLGA, Pace, Workshop

pytestmark = pytest.mark.xdist_group("browser")

PICTURES = Path(__file__).parents[1] / "build" / "screenshots"
WIDE: ViewportSize = {"width": 1440, "height": 900}
NARROW: ViewportSize = {"width": 375, "height": 800}
expect.set_options(timeout=30_000)
QUICK = Pace(
    timings=Timings(
        reconcile_takes=timedelta(milliseconds=100),
        queue_takes=timedelta(milliseconds=50),
        sync_takes=timedelta(milliseconds=300),
        settle_gap=timedelta(seconds=1),
        pod_takes=timedelta(milliseconds=200),
        progress_deadline=timedelta(seconds=1),
    ),
    rollout="{stable_for: 1s, degraded_grace: 1s, pick_up_within: 1m, timeout: 2m}",
    lease_seconds=3,
)
"""Argo CD looks a whole second after a sync, so that its stamps, in whole seconds, tell which came first."""


@dataclass
class Visitor:
    """Somebody at the page: what they do, and what they can find."""

    tab: Page
    workshop: Workshop
    complaints: list[str] = field(default_factory=list)

    async def become(self, person: str) -> None:
        """Look through another person's eyes."""
        button = self.tab.get_by_test_id(f"persona-{person}")
        await button.click()
        await expect(button).to_have_attribute("aria-pressed", "true")

    async def send(self, text: str) -> None:
        """Type and press Send."""
        await self.tab.get_by_test_id("composer").fill(text)
        await self.tab.get_by_test_id("send").click()

    async def turn(self, name: str) -> None:
        """Turn a switch, and wait until the page shows its effect."""
        await self.tab.get_by_test_id(f"switch-{name}").click()
        await expect(self.tab.get_by_test_id(f"switch-{name}")).to_be_enabled()

    def card(self, title: str) -> Locator:
        """The card with these words in its headline."""
        heading = self.tab.get_by_role("heading", name=title)
        return self.tab.locator("#log > article.message", has=heading)

    async def sees(self, title: str) -> Locator:
        """Wait for that card."""
        card = self.card(title)
        await expect(card).to_be_visible()
        return card

    async def is_told(self, words: str) -> Locator:
        """Wait for a private answer with these words."""
        answer = self.tab.locator("#log > article.private").filter(has_text=words)
        await expect(answer).to_be_visible()
        return answer

    async def sees_running(self, environment: str, version: str) -> None:
        """Wait until every pod of an environment runs a version, in Argo CD's eyes too."""
        panel = self.tab.get_by_test_id(f"application-manual-app-{environment}")
        await expect(panel.locator(".version")).to_have_text(version)
        await expect(panel.locator(".states")).to_contain_text("HealthySynced")

    async def press_approve(self, card: Locator) -> None:
        """Press *Approve* and confirm."""
        await card.get_by_role("button", name="Approve").click()
        await self.tab.get_by_test_id("confirm-yes").click()

    async def take_picture(self, name: str, *, pane: str = "talk") -> None:
        """Keep what is to be seen, wide and narrow; the narrow page may not scroll sideways."""
        await self.tab.screenshot(path=PICTURES / f"{name}-wide.png", animations="disabled")
        await self.tab.set_viewport_size(NARROW)
        modal = await self.tab.locator("dialog[open]").count()
        if not modal:
            await self.tab.get_by_test_id(f"tab-{pane}").click()
        await self.tab.screenshot(path=PICTURES / f"{name}-narrow.png", animations="disabled")
        assert await self.tab.evaluate(OVERHANGING) == []
        assert not NOT_DRAWN.findall(await self.tab.locator("#log").inner_text())
        if not modal:
            await self.tab.get_by_test_id("tab-talk").click()
        await self.tab.set_viewport_size(WIDE)


NOT_DRAWN = re.compile(r":[a-z_]+:")
"""An emoji's name where its picture should be."""

OVERHANGING = """() => {
  const scrolls = (node) => node && node !== document.documentElement &&
    (["auto", "scroll"].includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
  const wide = document.documentElement.clientWidth;
  return [...document.querySelectorAll("body *")]
    .filter((node) => node.checkVisibility() && !node.closest(".hidden") && !scrolls(node.parentElement))
    .filter((node) => node.getBoundingClientRect().right > wide + 0.5 || node.getBoundingClientRect().left < -0.5)
    .map((node) => `${node.tagName}.${node.className}`);
}"""
"""Elements that stick out of the window, but for those in a part that scrolls by itself."""

Opening = Callable[..., AbstractAsyncContextManager[Visitor]]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Debian's own browser; nothing is downloaded."""
    chromium = require("chromium", "chromium")
    PICTURES.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        await started.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opening:
    """The demo in a browser, with versions that the environments run from the start."""
    monkeypatch.setattr(demo_page, "POLL_SECONDS", 0.2)

    @contextlib.asynccontextmanager
    async def open_demo(**versions: str) -> AsyncIterator[Visitor]:
        workshop = Workshop(tmp_path / "world", pace=QUICK)
        if versions:
            rewrite(workshop.repository, versions, tmp_path / "clone")
        page = demo_page.Page(workshop.slack, DemoWorld(workshop), token="a-token-for-the-page")
        try:
            await workshop.start()
            await page.start()
            tab = await browser.new_page(viewport=WIDE, timezone_id="UTC", reduced_motion="reduce")
            visitor = Visitor(tab, workshop)
            tab.on("pageerror", lambda error: visitor.complaints.append(str(error)))
            tab.on("console", lambda said: said.type == "error" and visitor.complaints.append(said.text))
            await tab.goto(page.address)
            await visitor.become(DANA)
            yield visitor
            await tab.close()
            assert not visitor.complaints
        finally:
            await page.stop()
            await workshop.stop()

    return open_demo


def rewrite(repository: Path, versions: dict[str, str], clone: Path) -> None:
    """Commit these versions, as if they had been promoted before."""
    git("clone", "--quiet", str(repository), str(clone))
    for environment, version in versions.items():
        file = clone / f"values-{environment}.yaml"
        file.write_text(file.read_text("utf-8").replace('tag: "14"', f'tag: "{version}"'), "utf-8")
    who = ("-c", "user.name=Priya Nair", "-c", "user.email=priya.nair@acme.example")
    where = " and ".join(versions)
    git("-C", str(clone), *who, "commit", "--quiet", "-a", "-m", f"Bring the new version to {where}")
    git("-C", str(clone), "push", "--quiet", "origin", "main")


def git(*words: str) -> str:
    """Run git without this machine's configuration."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    done = subprocess.run(["git", *words], check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def last_change(repository: Path) -> str:
    """What the newest commit changes: added and removed lines, and the file."""
    return git(f"--git-dir={repository}", "diff", "--numstat", "main~1", "main").strip()


# --- the stories


async def test_a_version_goes_from_ci_to_prod(opened: Opening) -> None:
    """CI builds it, Dana asks, those who may not approve are refused, Amy approves, and it is live."""
    async with opened() as visitor:
        await visitor.take_picture("01-start")
        await visitor.turn("ci")
        await visitor.sees_running("dev", "15")
        await visitor.send("/promote manual-app to stage")
        await visitor.sees("Live: manual-app 15 → stage")
        await visitor.take_picture("02-live-in-stage")
        await visitor.send("/promote manual-app to prod because fixes INC-42")
        card = await visitor.sees("Approval needed: manual-app 15 → prod")
        await visitor.take_picture("03-approval-needed")
        await take_card_picture(card)
        await refused_approvals(visitor, card)
        await visitor.become(AMY)
        await card.get_by_role("button", name="Approve").click()
        await expect(visitor.tab.get_by_test_id("confirm")).to_contain_text("Real users")
        await visitor.take_picture("05-confirm")
        await visitor.tab.get_by_test_id("confirm-yes").click()
        await visitor.sees("Rolling out: manual-app 15 → prod")
        await visitor.take_picture("06-rolling-out")
        await visitor.sees("Live: manual-app 15 → prod")
        await expect(visitor.card("manual-app 15 → prod")).to_have_count(1)
        await visitor.sees_running("prod", "15")
        await visitor.card("Live: manual-app 15 → prod").get_by_test_id("thread-toggle").click()
        await visitor.take_picture("07-live-in-prod")
        await visitor.tab.locator("#git summary").first.click()
        trailers = visitor.tab.locator("#git dl").first
        await expect(trailers).to_contain_text("Approved-By")
        await trailers.scroll_into_view_if_needed()
        await visitor.take_picture("08-the-world", pane="world")
        assert last_change(visitor.workshop.repository) == "1\t1\tvalues-prod.yaml"
        await visitor.send("/promote help")
        await visitor.is_told("takes one image through")
        await visitor.send("/promote status")
        await visitor.is_told("git holds 15")
        await visitor.take_picture("14-help-and-status")


async def take_card_picture(card: Locator) -> None:
    """Keep one card alone, twice as sharp: `docs/card.png` is a copy of this picture."""
    browser = card.page.context.browser
    assert browser
    tab = await browser.new_page(
        viewport={"width": 620, "height": 1000}, device_scale_factor=2, reduced_motion="reduce"
    )
    await tab.goto(card.page.url)
    shown = tab.get_by_test_id(str(await card.get_attribute("data-testid")))
    await shown.screenshot(path=PICTURES / "card.png", animations="disabled")
    await tab.close()


async def refused_approvals(visitor: Visitor, card: Locator) -> None:
    """The requester, the guest and the outsider press *Approve*; each is told why not, in private."""
    reasons = {DANA: "somebody else must approve", GUS: "guests may not", OLGA: "from another workspace"}
    for person, reason in reasons.items():
        await visitor.become(person)
        await visitor.press_approve(card)
        await visitor.is_told(reason)
    await visitor.take_picture("04-refused")
    assert read_file(visitor.workshop.repository, "values-prod.yaml").count('tag: "14"') == 1


async def test_trouble_is_told_as_it_is(opened: Opening) -> None:
    """Argo CD goes away before the commit and is waited for; then pods crash, and the card has their word for it."""
    async with opened(dev="17", stage="16") as visitor:
        await visitor.turn("argocd_down")
        await visitor.send("/promote manual-app to prod")
        await visitor.is_told("Argo CD is not available")
        await visitor.turn("argocd_down")
        await visitor.send("/promote manual-app to prod because it looks fine in stage")
        card = await visitor.sees("Approval needed: manual-app 16 → prod")
        await visitor.turn("argocd_down")
        await visitor.become(AMY)
        await visitor.press_approve(card)
        card = await visitor.sees("Approved: manual-app 16 → prod")
        await expect(card).to_contain_text("Argo CD is not available")
        await visitor.take_picture("09-argo-cd-down")
        await visitor.turn("argocd_down")
        await visitor.sees("Live: manual-app 16 → prod")
        await visitor.turn("degrade_next")
        await visitor.send("/promote manual-app to stage because QA wants it")
        card = await visitor.sees("Degraded: manual-app 17 → stage")
        await expect(card).to_contain_text("CrashLoopBackOff")
        await visitor.take_picture("10-failed")
        await visitor.take_picture("11-crashing-pods", pane="world")


async def test_a_no_with_its_reason_and_a_yes_without_a_mouse(opened: Opening) -> None:
    """Ben must say why he rejects; Dana asks again; the bot is killed; Amy approves by keyboard all the same."""
    async with opened(dev="15", stage="15") as visitor:
        keyboard = visitor.tab.keyboard
        await visitor.tab.get_by_test_id("composer").focus()
        await keyboard.type("/promote manual-app to prod because fixes INC-42")
        await keyboard.press("Enter")
        await visitor.become(BEN)
        await reject(visitor, await visitor.sees("Approval needed: manual-app 15 → prod"))
        assert read_file(visitor.workshop.repository, "values-prod.yaml").count('tag: "14"') == 1
        await visitor.become(DANA)
        rejected = visitor.card("Rejected: manual-app 15 → prod")
        await rejected.get_by_role("button", name="Ask again").click()
        await visitor.sees("Approval needed: manual-app 15 → prod")
        await visitor.turn("kill_bot")
        await expect(visitor.tab.locator("#bot-state")).to_contain_text("started 2 times")
        await approve_by_keyboard(visitor, visitor.card("Approval needed: manual-app 15 → prod"))
        await visitor.sees("Rolling out: manual-app 15 → prod")
        assert last_change(visitor.workshop.repository) == "1\t1\tvalues-prod.yaml"


async def reject(visitor: Visitor, card: Locator) -> None:
    """Send the modal without a reason, which it complains about, and then with one."""
    await card.get_by_role("button", name="Reject").click()
    dialog = visitor.tab.get_by_test_id("dialog")
    await visitor.tab.get_by_test_id("dialog-submit").click()
    await expect(dialog.locator("[aria-invalid=true]")).to_be_focused()
    await visitor.take_picture("12-reject-without-reason")
    await visitor.tab.keyboard.type("Freeze until Monday")
    await visitor.tab.keyboard.press("Tab")
    await visitor.tab.keyboard.press("Tab")
    await expect(visitor.tab.get_by_test_id("dialog-submit")).to_be_focused()
    await visitor.tab.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
    card = await visitor.sees("Rejected: manual-app 15 → prod")
    await expect(card).to_contain_text("Freeze until Monday")
    await visitor.take_picture("13-rejected")


async def approve_by_keyboard(visitor: Visitor, card: Locator) -> None:
    """Become Amy, think twice, and approve: the focus is where it was after *Not yet*."""
    keyboard = visitor.tab.keyboard
    amy = visitor.tab.get_by_test_id(f"persona-{AMY}")
    await amy.focus()
    await keyboard.press("Enter")
    await expect(amy).to_have_attribute("aria-pressed", "true")
    approve = card.get_by_role("button", name="Approve")
    await approve.focus()
    await keyboard.press("Enter")
    await expect(visitor.tab.get_by_test_id("confirm")).to_be_visible()
    await keyboard.press("Escape")
    await expect(visitor.tab.get_by_test_id("confirm")).to_have_count(0)
    await expect(approve).to_be_focused()
    await keyboard.press("Enter")
    await expect(visitor.tab.get_by_test_id("confirm-no")).to_be_focused()
    await keyboard.press("Tab")
    await keyboard.press("Enter")
