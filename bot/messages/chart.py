"""The numbers of DORA as a picture: a row for each target, a tile for each number."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial

from PIL import Image, ImageDraw, ImageFont

from bot.core.measuring import Statistics
from bot.core.stats import Numbers, Spread
from bot.messages.stats import NO_NUMBERS, Said, failures, frequency, lead, restore, title

SCALE = 2
"""Pixels of a point: sharp on dense screens."""
WIDTH, MARGIN, GAP, PADDING = 800, 24, 10, 14
HEAD, NAME, TILE, SPACE, FOOT = 108, 36, 172, 26, 44
BASIS, LINES = 14, 3
"""The size of the words below a number, and in how many lines they stand at most."""
MOST_ROWS = 8
"""More targets than these would make a picture that nobody can read."""
COLUMNS = 30
"""In how many columns the deployments stand at most."""
LOWEST = 3
"""How many deployments a column of the whole height stands for at least."""
INK, GREY, FAINT = "#1d1c1d", "#56606b", "#7c8590"
PAPER, CARD, EMPTY, UNKNOWN = "#ffffff", "#f4f6f8", "#e0e4e9", "#b4bcc6"
BLUE, PALE, GREEN, RED = "#1f5f9e", "#a9c8e6", "#2f9e6e", "#d1453b"
NOTE = "Rollbacks are no deployments. Red: failed. Grey: nobody knows. Times: dark to the median, pale to 9 of 10."

Area = tuple[float, float, float, float]
"""Left, top, right and bottom, in points."""


def draw(found: Statistics) -> bytes:
    """The picture as PNG, the same bytes for the same numbers; of the first eight targets alone."""
    rows = [each.numbers for each in found.targets[:MOST_ROWS]]
    canvas = _Canvas(height=HEAD + len(rows) * (NAME + TILE + SPACE) + FOOT)
    canvas.text((MARGIN, 22), title(found), size=30, colour=INK)
    left_out = len(found.targets) - len(rows) + found.left_out
    more = f", {left_out} more targets are not shown" if left_out else ""
    canvas.text((MARGIN, 61), f"{_day(found.since)} to {_day(found.until)}{more}", size=17, colour=GREY)
    scales = _Scales(
        lead=max((_longest(each.lead) for each in rows), default=timedelta(0)),
        restore=max((_longest(each.restore) for each in rows), default=timedelta(0)),
    )
    for place, numbers in enumerate(rows):
        _row(canvas, numbers, scales, top=HEAD + place * (NAME + TILE + SPACE))
    canvas.text((MARGIN, canvas.height - 38), NOTE, size=13, colour=FAINT, width=WIDTH - 2 * MARGIN)
    return canvas.png()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scales:
    """The longest times of all rows, which their bars are measured by."""

    lead: timedelta
    restore: timedelta


class _Canvas:
    """A picture that is measured in points."""

    def __init__(self, *, height: float) -> None:
        self.height = height
        self._image = Image.new("RGB", (WIDTH * SCALE, round(height * SCALE)), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self, at: tuple[float, float], words: str, *, size: int, colour: str, width: float = math.inf
    ) -> float:
        """One line, cut with an ellipsis where it is wider than `width`; returns where it ends."""
        font = _font(size)
        while len(words) > 1 and font.getlength(words) > width * SCALE:
            words = words.removesuffix("…")[:-1].rstrip() + "…"
        self._draw.text((at[0] * SCALE, at[1] * SCALE), words, font=font, fill=colour)
        return at[0] + font.getlength(words) / SCALE

    def box(self, area: Area, *, colour: str, radius: float = 0) -> None:
        """A filled rectangle; nothing where it has no width."""
        left, top, right, bottom = (round(edge * SCALE) for edge in area)
        if right > left and bottom > top:
            self._draw.rounded_rectangle((left, top, right - 1, bottom - 1), radius * SCALE, fill=colour)

    def png(self) -> bytes:
        """The bytes of the file."""
        file = io.BytesIO()
        self._image.save(file, format="PNG")
        return file.getvalue()


def _row(canvas: _Canvas, numbers: Numbers, scales: _Scales, *, top: float) -> None:
    """The name of a target, and its four tiles."""
    end = canvas.text((MARGIN, top), numbers.app, size=22, colour=INK, width=WIDTH * 0.45)
    canvas.text((end + 8, top), numbers.environment, size=22, colour=BLUE, width=WIDTH * 0.45)
    width = (WIDTH - 2 * MARGIN - 3 * GAP) / 4
    tiles = (
        ("Deployments", frequency(numbers), partial(_columns, numbers=numbers)),
        ("Lead time", lead(numbers), partial(_times, spread=numbers.lead, longest=scales.lead)),
        ("Change failure rate", failures(numbers), partial(_shares, numbers=numbers)),
        (
            "Time to restore",
            restore(numbers),
            partial(_times, spread=numbers.restore, longest=scales.restore),
        ),
    )
    for place, (name, said, graph) in enumerate(tiles):
        left = MARGIN + place * (width + GAP)
        area = (left, top + NAME, left + width, top + NAME + TILE)
        canvas.box(area, colour=CARD, radius=8)
        _tile(canvas, area, name, said, graph)


def _tile(canvas: _Canvas, area: Area, name: str, said: Said, graph: Callable[[_Canvas, Area], None]) -> None:
    """What it is, the number, its graph, and what it was counted from."""
    left, top, right = area[0] + PADDING, area[1], area[2] - PADDING
    canvas.text((left, top + 13), name, size=15, colour=GREY)
    is_number = said.value not in NO_NUMBERS
    canvas.text((left, top + 35), said.value, size=25, colour=INK if is_number else FAINT, width=right - left)
    graph(canvas, (left, top + 72, right, top + 98))
    for place, line in enumerate(_wrapped(said.basis, right - left)):
        canvas.text((left, top + 108 + place * 18), line, size=BASIS, colour=GREY, width=right - left)


def _columns(canvas: _Canvas, area: Area, *, numbers: Numbers) -> None:
    """Deployments over the window, a column for a day, or for a part of the window where that is longer or short."""
    left, top, right, bottom = area
    count = min(COLUMNS, max(1, round(numbers.days))) if numbers.days >= 7 else COLUMNS // 2
    tally = Counter(_column(at, numbers, count) for at in numbers.dates)
    highest, step = max(LOWEST, max(tally.values(), default=0)), (right - left) / count
    for place in range(count):
        begin = left + place * step
        height = 2 + (bottom - top - 2) * tally[place] / highest if tally[place] else 2
        colour = BLUE if tally[place] else EMPTY
        canvas.box((begin, bottom - height, begin + step - 1.5, bottom), colour=colour, radius=1)


def _column(at: datetime, numbers: Numbers, count: int) -> int:
    share = (at - numbers.since) / (numbers.until - numbers.since)
    return min(count - 1, max(0, int(share * count)))


def _times(canvas: _Canvas, area: Area, *, spread: Spread | None, longest: timedelta) -> None:
    """A track as long as the longest time of all rows: dark up to the median, pale up to the 90th percentile."""
    track = _track(area)
    canvas.box(track, colour=EMPTY, radius=4)
    if spread is None or spread.median is None or spread.p90 is None:
        return
    for time, colour in ((spread.p90, PALE), (spread.median, BLUE)):
        share = time / longest if longest else 0.0
        end = max(track[0] + 8, track[0] + share * (track[2] - track[0]))
        canvas.box((track[0], track[1], end, track[3]), colour=colour, radius=4)


def _shares(canvas: _Canvas, area: Area, *, numbers: Numbers) -> None:
    """Of all deployments, those that failed, those that nobody knows of, and those that went well."""
    left, top, right, bottom = _track(area)
    canvas.box((left, top, right, bottom), colour=EMPTY, radius=4)
    known = numbers.endings
    parts = ((numbers.deployments, UNKNOWN), (known, GREEN), (numbers.failures, RED))
    for count, colour in parts:
        if count:
            end = left + (right - left) * count / numbers.deployments
            canvas.box((left, top, end, bottom), colour=colour, radius=4)


def _track(area: Area) -> Area:
    middle = (area[1] + area[3]) / 2
    return area[0], middle - 4, area[2], middle + 4


def _wrapped(words: str, width: float) -> list[str]:
    """In three lines; what does not fit into the last one is cut where it is drawn."""
    font, lines = _font(BASIS), [""]
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if len(lines) < LINES and lines[-1] and font.getlength(longer) > width * SCALE:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _longest(spread: Spread | None) -> timedelta:
    return (spread.p90 if spread else None) or timedelta(0)


def _day(at: datetime) -> str:
    return f"{at:%-d %b %Y}"


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that Pillow brings; it has little more than ASCII."""
    font = ImageFont.load_default(size * SCALE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow was built without FreeType")
    return font
