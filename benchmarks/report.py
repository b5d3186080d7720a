"""The figures, the bars that they are held against, and the table and JSON that are made of them."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HEAD = "| What | Measured | Bar | |\n|---|---|---|---|\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The value that a figure must not exceed, or must reach where `is_floor`."""

    limit: float
    is_floor: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.is_floor else '≤'} {self.limit:g}"

    def holds(self, value: float) -> bool:
        """Is the value on the good side?"""
        return value >= self.limit if self.is_floor else value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure: its value in each round, of which the median counts; `detail` says what it was made of."""

    what: str
    values: tuple[float, ...]
    unit: str
    bar: Bar | None = None
    detail: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """`ok` or `MISSED`; empty where there is no bar."""
        if self.bar is None:
            return ""
        return "ok" if self.bar.holds(self.value) else "MISSED"

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        bar = f" – bar {self.bar}: {self.verdict}" if self.bar else ""
        return f"{self.what}: {rounded(self.value)} {self.unit}{detail}{bar}"

    @property
    def row(self) -> str:
        """The figure as a row of the table."""
        detail = f" ({self.detail})" if self.detail else ""
        measured = f"**{rounded(self.value)} {self.unit}**{detail}"
        return f"| {self.what} | {measured} | {self.bar or ''} | {self.verdict} |\n"


def ratio(
    what: str, above: Sequence[float], below: Sequence[float], *, bar: Bar | None = None, unit: str = "x"
) -> Figure:
    """How many times `below` goes into `above`, both in seconds, round by round."""
    return Figure(
        what=what,
        values=tuple(a / b for a, b in zip(above, below, strict=True)),
        unit=unit,
        bar=bar,
        detail=f"{duration(statistics.median(above))} to {duration(statistics.median(below))}",
    )


def rounded(value: float) -> str:
    """Two decimals for small figures, none for large ones."""
    return f"{value:.2f}" if value < 10 and value % 1 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Milliseconds, or seconds from ten on."""
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds * 1000:,.0f} ms"


def say(words: str) -> None:
    """Print a line of progress at once."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def machine(*, rounds: int) -> dict[str, str | int]:
    """What the figures depend on, without a name or a path of the machine."""
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True)
    return {
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "git": git.stdout.split()[2],
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "rounds": rounds,
    }


def write(figures: Sequence[Figure], folder: Path, *, rounds: int) -> None:
    """Write `bench.md` and `bench.json` into the folder."""
    facts = machine(rounds=rounds)
    folder.mkdir(exist_ok=True)
    (folder / "bench.md").write_text(
        HEAD
        + "".join(figure.row for figure in figures)
        + "\nMedians of {rounds} rounds on {cores} cores ({system}), git {git}, Python {python}, {date}.\n".format(
            **facts
        )
    )
    listed = [
        {
            "what": figure.what,
            "median": figure.value,
            "unit": figure.unit,
            "rounds": figure.values,
            "detail": figure.detail,
            "bar": str(figure.bar or ""),
            "verdict": figure.verdict,
        }
        for figure in figures
    ]
    (folder / "bench.json").write_text(json.dumps({"machine": facts, "figures": listed}, indent=1) + "\n")
