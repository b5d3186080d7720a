"""What it all came to: a table in Markdown with a column for each part, and everything in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one part measured. Times are seconds."""

    name: str
    seed: int | None = None
    """None where nothing is left to chance."""
    lease: int | None = None
    replicas: str
    """The processes of the bot, side by side."""
    kills: int = 0
    lost_replies: int = 0
    promotions: int
    commits: int
    duplicates: int = 0
    """Commits beyond the one of each promotion."""
    lost: int = 0
    """Promotions that people were told of, and that are nowhere."""
    wrong_phases: int = 0
    copies: int = 0
    """Cards beyond the one of each promotion."""
    repeats: int = 0
    """Lines of a thread that stand there more often than once."""
    takeover: float | None = None
    """The longest time until a dead worker's work was claimed again."""
    seconds: float
    violations: tuple[str, ...] = ()
    also: Mapping[str, str] = field(default_factory=dict)
    """What only this part measures."""
    details: Sequence[Any] = ()
    """For the JSON alone."""

    def figures(self) -> dict[str, str]:
        """Each figure by its name."""
        return {
            "kills": f"{self.kills}",
            "lost replies": f"{self.lost_replies}",
            "lease": "–" if self.lease is None else f"{self.lease} s",
            "replicas": self.replicas,
            "promotions": f"{self.promotions}",
            "commits": f"{self.commits}",
            "duplicates of commits": f"{self.duplicates}",
            "lost": f"{self.lost}",
            "wrong phases": f"{self.wrong_phases}",
            "copies of cards": f"{self.copies}",
            "lines told twice": f"{self.repeats}",
            "longest takeover": "–" if self.takeover is None else f"{self.takeover:.1f} s",
            "violations": f"{len(self.violations)}",
            "seconds": f"{self.seconds:.0f}",
            "seed": "–" if self.seed is None else f"{self.seed}",
            **self.also,
        }


def table(parts: Sequence[Part]) -> str:
    """Markdown: a row for each figure, a column for each part."""
    columns = [part.figures() for part in parts]
    rows = [
        ["What", *(part.name for part in parts)],
        ["---"] * (len(parts) + 1),
        *([name, *(column.get(name, "–") for column in columns)] for name in _names(columns)),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write(parts: Sequence[Part], folder: Path) -> str:
    """Write `chaos.md` and `chaos.json` into the folder, and return the text of the first."""
    kills, broken = (
        sum(part.kills for part in parts),
        [f"- {part.name}: {each}\n" for part in parts for each in part.violations],
    )
    text = f"{table(parts)}\n{kills} kills, {len(broken)} violations.\n{''.join(broken)}"
    folder.mkdir(exist_ok=True)
    (folder / "chaos.md").write_text(text, encoding="utf-8")
    told = [{**asdict(part), "also": dict(part.also)} for part in parts]
    (folder / "chaos.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return text


def _names(columns: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for column in columns for name in column))
