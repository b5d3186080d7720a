"""What the runs came to: a table in Markdown, and everything in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from chaos.run import Outcome
from chaos.world import PACE

HEAD = "| What | Measured |\n|---|---|\n"


def table(outcomes: Sequence[Outcome], *, boundaries: int, left: int) -> dict[str, str]:
    """Each figure by its name; `left` is how many faults there was no time for."""
    struck = [each for each in outcomes if each.fault and each.struck]
    takeovers = [each.takeover for each in outcomes if each.killed and each.takeover is not None]
    return {
        "boundaries in an undisturbed run": f"{boundaries}",
        "runs": f"{len(outcomes)}",
        "kills": f"{sum(each.killed for each in struck)}",
        "lost replies": f"{sum(not each.killed for each in struck)}",
        "boundary not reached": f"{sum(bool(each.fault) and not each.struck for each in outcomes)}",
        "faults without time for a run": f"{left}",
        "lease": f"{PACE.lease_seconds} s",
        "promotions": f"{sum(each.phase != 'lost' for each in outcomes)}",
        "commits": f"{sum(each.commits for each in outcomes)}",
        "duplicates of commits": f"{sum(max(0, each.commits - 1) for each in outcomes)}",
        "lost": f"{sum(each.phase == 'lost' for each in outcomes)}",
        "wrong phases": f"{sum(each.phase not in ('live', 'lost') for each in outcomes)}",
        "copies of cards": _where([each for each in outcomes if each.copies]),
        "runs with a line told twice": _where([each for each in outcomes if each.repeats]),
        "longest takeover": f"{max(takeovers):.1f} s" if takeovers else "–",
        "violations": f"{sum(len(each.violations) for each in outcomes)}",
    }


def write(
    outcomes: Sequence[Outcome], folder: Path, *, boundaries: int, left: Sequence[str], seed: int
) -> dict[str, str]:
    """Write `chaos.md` and `chaos.json` into the folder, and return the table's figures."""
    figures = table(outcomes, boundaries=boundaries, left=len(left))
    rows = "".join(f"| {what} | {value} |\n" for what, value in figures.items())
    broken = [f"- {outcome}\n" for outcome in outcomes if outcome.violations]
    folder.mkdir(exist_ok=True)
    text = f"{HEAD}{rows}\nSeed {seed}.\n{''.join(broken)}"
    (folder / "chaos.md").write_text(text, encoding="utf-8")
    runs = [asdict(each) | {"fault": str(each.fault or "")} for each in outcomes]
    told = {"seed": seed, "figures": figures, "left": list(left), "runs": runs}
    (folder / "chaos.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return figures


def _where(outcomes: Sequence[Outcome]) -> str:
    """How many, and at which faults."""
    names = ", ".join(f"`{each.fault}`" for each in outcomes)
    return f"{len(outcomes)} ({names})" if outcomes else "0"
