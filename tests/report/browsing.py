"""A page in a tab of Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator
    from playwright.sync_api import Page as Tab

WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 360, "height": 740}

COLUMNS = """new Set([...document.querySelectorAll(".item")]
    .map((item) => item.style.transform.split(",")[0])).size"""
"""How many columns of cards there are."""

FOCUSED = "document.activeElement.querySelector('.path')?.textContent"
"""The name on the card that has the focus."""


class Opened:
    """A page in a tab, and all that it asked for or complained of."""

    def __init__(self, browser: Browser, file: Path, **how: Any) -> None:
        how.setdefault("viewport", WIDE)
        self.context = browser.new_context(**how)
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(10_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.goto(file.as_uri())


def firsts(mine: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in mine if row["rank"] == 0]


def names(tab: Tab) -> list[str]:
    return tab.locator("#gallery .path").all_inner_texts()


def short(row: dict[str, Any]) -> str:
    return Path(row["path"]).name


def cards(tab: Tab) -> Locator:
    return tab.locator("#gallery button.card")


def wait_for_names(tab: Tab, expected: list[str]) -> None:
    """Wait until the gallery shows these images in this order."""
    from playwright.sync_api import expect

    expect(tab.locator("#gallery .path")).to_have_text(expected)
