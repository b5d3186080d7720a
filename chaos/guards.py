"""Take each guard of an invariant out of a copy of the code, and see that a test fails: `python -m chaos.guards`.

A guard that nothing misses is either not tested or not needed. Each is taken out alone, in a copy of its own; a control
that must still pass shows that the copy works but for the guard. Exit 1 where a guard survived.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("bot", "handlers", "tests", "chaos", "pyproject.toml", "promote.yaml")
SIDE_BY_SIDE = 2
CONTROL = "tests/test_invariants.py::test_without_trouble_a_promotion_goes_live"
ALL_PASSED, SOME_FAILED = 0, 1
"""Exit codes of pytest; with any other one it did not come so far."""
SECONDS_FOR_A_TEST = 100


@dataclass(frozen=True, slots=True)
class Guard:
    """A few words of the code without which an invariant breaks, and the test that tells."""

    name: str
    invariant: str
    file: str
    removed: str
    """Stands in the file exactly once."""
    instead: str
    test: str
    """A function of a test file: `tests/test_x.py::test_y`."""


class Verdict(StrEnum):
    """What became of a copy without its guard."""

    CAUGHT = "yes"
    SURVIVED = "NO: the test passes without it"
    BROKEN = "NO: nothing runs without it, so the test says nothing"
    LOST = "NO: its text is not in the file exactly once"


LUA = "bot/integrations/lua.py"
ADVANCE = "bot/core/advance.py"
RECORDING = "bot/core/recording.py"
RECHECKING = "bot/core/rechecking.py"
CASES = "bot/core/cases.py"
POLICY = "bot/core/policy.py"
PROMOTION = "bot/core/promotion.py"
PROMOTER = "bot/core/promoter.py"
SEALS = "bot/core/seals.py"
PEOPLE = "bot/core/people.py"
ANNOUNCING = "bot/core/announcing.py"
RECONCILING = "bot/core/reconciling.py"
WRITER = "bot/integrations/writer.py"
WORKER = "bot/worker.py"

INVARIANTS = "tests/test_invariants.py::"
I1_LOST = f"{INVARIANTS}test_i1_what_was_written_and_undone_is_not_written_again"
I1_LATE = f"{INVARIANTS}test_i1_a_push_that_lands_between_two_tries_is_found_before_the_next"
I1_BACK = f"{INVARIANTS}test_i1_a_record_from_before_its_commit_writes_nothing"
I2_QUORUM = f"{INVARIANTS}test_i2_only_different_people_who_still_may_make_a_quorum"
I2_TIME = f"{INVARIANTS}test_i2_an_approval_given_at_the_end_of_its_time_is_none"
I2_LEFT = f"{INVARIANTS}test_i2_who_left_the_policy_is_not_named_as_an_approver"
I2_OLD = f"{INVARIANTS}test_i2_what_was_called_off_long_ago_is_not_brought_back"
I3_END = f"{INVARIANTS}test_i3_nothing_counts_after_an_end"
I3_SWEPT = f"{INVARIANTS}test_i3_an_older_promotion_that_was_swept_does_not_come_back"
I4_NEXT = f"{INVARIANTS}test_i4_each_edition_follows_the_one_before_it"
I4_WHOLE = f"{INVARIANTS}test_i4_several_changes_are_saved_whole_or_not_at_all"
I5_ASK = f"{INVARIANTS}test_i5_of_many_who_ask_at_once_one_holds_the_target"
I5_FREE = f"{INVARIANTS}test_i5_who_does_not_hold_frees_nothing"
I6_ALONE = f"{INVARIANTS}test_i6_it_is_in_the_index_of_its_phase_alone"
I7_RENEW = f"{INVARIANTS}test_i7_a_late_renewal_brings_nothing_back"
I7_GONE = f"{INVARIANTS}test_i7_what_does_not_exist_is_never_due"
I8_BRANCH = f"{INVARIANTS}test_i8_what_is_committed_is_on_the_branch"
I8_LAND = f"{INVARIANTS}test_i8_what_may_be_on_the_branch_is_never_called_off"
I9_DELIVERY = f"{INVARIANTS}test_i9_one_delivery_is_one_promotion"
I10_DEAD = f"{INVARIANTS}test_i10_what_a_dead_worker_held_is_looked_at_within_a_lease_and_a_second"
I10_DURING = f"{INVARIANTS}test_i10_what_is_decided_during_a_look_is_looked_at_at_once"
I11_AGAIN = f"{INVARIANTS}test_i11_the_same_command_again_changes_nothing"
I11_TWICE = f"{INVARIANTS}test_i11_two_presses_at_the_same_moment_count_once"
I12_READ = f"{INVARIANTS}test_i12_people_see_how_it_ended_and_read_each_event_once"
I12_BESIDE = f"{INVARIANTS}test_i12_nobody_tells_people_beside_the_one_who_does"
SWEEP = "tests/test_store_durability.py::test_what_is_young_due_open_holding_or_followed_is_kept"
CHANGED_RECORD = "tests/test_advance.py::test_a_changed_record_is_not_committed"
NOBODY = "if False:"


GUARDS: tuple[Guard, ...] = (
    # --- the store's scripts
    Guard(
        "save: the next edition",
        "I4",
        LUA,
        "elseif edition ~= change.edition - 1 then",
        "elseif false then",
        I4_NEXT,
    ),
    Guard(
        "save: a repetition is no conflict", "I4", LUA, "if saved == #changes then", "if false then", I4_NEXT
    ),
    Guard(
        "save: all or none",
        "I4",
        LUA,
        "if saved > 0 then return {'CONFLICT', changes[1].id} end",
        "",
        I4_WHOLE,
    ),
    Guard("save: the hold", "I5", LUA, "if other and other ~= change.id then", "if false then", I5_ASK),
    Guard(
        "save: gives only what is its own",
        "I5",
        LUA,
        "if owner(slot) == change.id then move(slot, false) end",
        "move(slot, false)",
        I5_FREE,
    ),
    Guard(
        "save: a hold without a record is free",
        "I5",
        LUA,
        " and redis.call('EXISTS', '{gp}:p:' .. id) == 1",
        "",
        "tests/test_regressions_edges.py::test_a_hold_without_its_record_counts_as_free",
    ),
    Guard(
        "save: leaves the phase before",
        "I6",
        LUA,
        "redis.call('ZREM', '{gp}:ph:' .. change.from, id)",
        "",
        I6_ALONE,
    ),
    Guard("save: the delivery", "I9", LUA, "if made then", "if false then", I9_DELIVERY),
    Guard(
        "save: waits for the lease",
        "I12",
        LUA,
        "if not lease or tonumber(lease) <= now then",
        "if true then",
        I12_BESIDE,
    ),
    Guard(
        "claim: stays in the due set",
        "I10",
        LUA,
        "redis.call('ZADD', KEYS[1], score(now + ARGV[2]), id)",
        "redis.call('ZREM', KEYS[1], id)",
        I10_DEAD,
    ),
    Guard(
        "claim: notes the lease",
        "I12",
        LUA,
        "redis.call('HSET', '{gp}:leases', id, score(now + ARGV[2]))",
        "",
        "tests/test_queue.py::test_a_save_during_a_lease_waits_for_the_one_who_works",
    ),
    Guard(
        "renew: puts off the next look",
        "I12",
        LUA,
        "redis.call('ZADD', KEYS[1], score(now + ARGV[1]), ARGV[i])",
        "",
        I12_BESIDE,
    ),
    Guard(
        "renew: brings nothing back",
        "I7",
        LUA,
        "if redis.call('HGET', '{gp}:workers', ARGV[i]) == ARGV[2] then",
        "if true then",
        I7_RENEW,
    ),
    Guard(
        "rest: ends nobody else's lease",
        "I12",
        LUA,
        "if worker and worker ~= ARGV[4] and lease and tonumber(lease) > now then return end",
        "",
        "tests/test_queue.py::test_whoever_was_slower_than_its_lease_ends_nobody_elses",
    ),
    Guard(
        "rest: of the edition that was looked at",
        "I10",
        LUA,
        "if edition and (woken or edition ~= ARGV[2]) then",
        "if false then",
        I10_DURING,
    ),
    Guard(
        "rest: what does not exist is not due",
        "I7",
        LUA,
        "elseif edition and ARGV[3] ~= '' then",
        "elseif ARGV[3] ~= '' then",
        I7_GONE,
    ),
    Guard("forget: not what is due", "I7", LUA, "or redis.call('ZSCORE', KEYS[1], id)", "", SWEEP),
    Guard(
        "forget: not who holds", "I5", LUA, "or redis.call('GET', '{gp}:hold:' .. ARGV[4]) == id", "", SWEEP
    ),
    Guard(
        "forget: not who is followed",
        "I7",
        LUA,
        "or redis.call('GET', '{gp}:follow:' .. ARGV[4]) == id",
        "",
        SWEEP,
    ),
    # --- the engine
    Guard(
        "write: the seals, before the commit",
        "I2",
        RECHECKING,
        "if doubt := self.sealer.doubt(promotion, target):",
        'if doubt := "":',
        I2_QUORUM,
    ),
    Guard(
        "write: the policy, at the commit",
        "I2",
        ADVANCE,
        "if not target.policy.is_satisfied([approval.by.id for approval in kept], await self._members(target)):",
        NOBODY,
        I2_QUORUM,
    ),
    Guard(
        "write: full members alone",
        "I2",
        RECHECKING,
        "is_member(person) and people.may(Action.APPROVE",
        "people.may(Action.APPROVE",
        I2_QUORUM,
    ),
    Guard(
        "write: never the requester",
        "I2",
        PEOPLE,
        " and not permission.never & held",
        "",
        I2_QUORUM,
    ),
    Guard(
        "write: whom a rule admits",
        "I2",
        PEOPLE,
        "bool(permission.to & held) and ",
        "",
        I2_LEFT,
    ),
    Guard(
        "write: soon after the approval",
        "I2",
        RECHECKING,
        "if now >= approved_at + within:",
        NOBODY,
        "tests/test_advance.py::test_the_git_host_away_for_too_long_expires_the_approval",
    ),
    Guard(
        "write: soon after the sealed request",
        "I2",
        RECHECKING,
        "min(promotion.approved_at or now, promotion.requested_at + target.policy.expires)",
        "promotion.approved_at or now",
        I2_OLD,
    ),
    Guard(
        "write: the value has not moved",
        "I2",
        RECHECKING,
        "if plan.old_version != promotion.old_version:",
        NOBODY,
        "tests/test_advance.py::test_a_value_changed_before_the_known_tip_makes_it_stale",
    ),
    Guard(
        "write: no newer request",
        "I5",
        RECHECKING,
        "if newer := await self._newer(promotion, target):",
        "if newer := None:",
        "tests/test_advance.py::test_in_the_first_environment_the_newest_wins",
    ),
    Guard(
        "write: looks for an earlier push",
        "I1",
        ADVANCE,
        "if promotion.base and (found := await self._find(promotion, target)):",
        NOBODY,
        I1_LATE,
    ),
    Guard(
        "settle: looks before it pushes",
        "I1",
        ADVANCE,
        'the remote knows."""\n        if found := await self._find(promotion, target):',
        'the remote knows."""\n        if found := "":',
        I1_LOST,
    ),
    Guard(
        "settle: a push may still land",
        "I8",
        ADVANCE,
        "return await self._push_again(promotion, target)",
        "pass",
        I8_LAND,
    ),
    Guard(
        "push again: what else keeps it from being written",
        "I2",
        ADVANCE,
        "await self._may_not_be_written(reopened, target)",
        "False",
        CHANGED_RECORD,
    ),
    Guard("push again: the policy", "I2", ADVANCE, "if not is_satisfied:", "if False:", CHANGED_RECORD),
    Guard(
        "supersede: only what is still followed",
        "I3",
        RECORDING,
        "older if older and older.phase is Phase.COMMITTED else None",
        "older",
        "tests/test_advance.py::test_the_older_one_may_end_while_the_newer_is_committed",
    ),
    Guard(
        "a bug ends nothing that may be on the branch",
        "I8",
        ADVANCE,
        " and promotion.phase in (Phase.APPROVED, Phase.COMMITTED)",
        " and not promotion.phase.is_final",
        "tests/test_advance.py::test_a_bug_while_the_commit_is_under_way_ends_nothing",
    ),
    # --- the promotion
    Guard("phase: only what may follow", "I3", PROMOTION, "phase not in NEXT[self.phase] or ", "", I3_END),
    Guard(
        "phase: only on its own way",
        "I2",
        PROMOTION,
        " or only not in (None, self.phase)",
        "",
        "tests/test_promotion.py::test_a_step_is_possible_from_its_own_phases_alone",
    ),
    Guard(
        "decide: only while it is open",
        "I3",
        PROMOTION,
        "if self.phase is not Phase.REQUESTED:",
        NOBODY,
        I3_END,
    ),
    Guard("approve: in time", "I2", PROMOTION, "if approval.at >= self.expires_at:", NOBODY, I2_TIME),
    Guard("approve: once", "I11", PROMOTION, "if self.approved_by(approval.by.id):", NOBODY, I11_AGAIN),
    Guard(
        "approve: what was shown",
        "I2",
        PROMOTION,
        "if approval.content_hash != self.content_hash:",
        NOBODY,
        "tests/test_promotion.py::test_an_approval_is_bound_to_the_content",
    ),
    Guard("withdraw: what was given", "I11", PROMOTION, "if not self.approved_by(by):", NOBODY, I11_TWICE),
    Guard(
        "cancel: not what may be on the branch",
        "I8",
        PROMOTION,
        " or self.may_be_written:",
        ":",
        "tests/test_regressions_core.py::test_a_commit_that_was_tried_cannot_be_cancelled_while_it_waits_again",
    ),
    # --- decisions
    Guard(
        "approve: not a changed record",
        "I2",
        PROMOTER,
        "if doubt := self.sealer.doubt(promotion, target):",
        'if doubt := "":',
        "tests/test_regressions_core.py::test_an_approval_of_a_changed_record_is_refused",
    ),
    Guard(
        "approve: what the button showed",
        "I2",
        PROMOTER,
        "if content_hash not in (None, promotion.content_hash):",
        NOBODY,
        "tests/test_promoter.py::test_a_button_that_showed_something_else_is_refused",
    ),
    Guard(
        "decide: on the newest edition",
        "I11",
        CASES,
        "current = await self.find(promotion.id)",
        "return step(current)",
        I11_TWICE,
    ),
    Guard(
        "decide: never the requester",
        "I2",
        PEOPLE,
        "if role in permission.never & held:",
        NOBODY,
        "tests/test_promoter.py::test_own_approval_is_refused",
    ),
    Guard(
        "quorum: each person once",
        "I2",
        POLICY,
        "counted = {user for user in approvers if self.admits(user, members)}",
        "counted = [user for user in approvers if self.admits(user, members)]",
        I2_QUORUM,
    ),
    # --- the seals
    Guard(
        "seal: lengths before words",
        "I2",
        SEALS,
        '"{len(word)}:{word}"',
        '"{word}"',
        "tests/test_seals.py::test_words_cannot_flow_into_one_another",
    ),
    Guard(
        "seal: the content of the approval",
        "I2",
        SEALS,
        "approval.content_hash == promotion.content_hash and ",
        "",
        "tests/test_seals.py::test_a_changed_approval_is_not_genuine",
    ),
    Guard(
        "seal: the target and the rules of today",
        "I2",
        SEALS,
        "if expected != promotion.content_hash:",
        NOBODY,
        "tests/test_advance.py::test_a_changed_configuration_makes_it_stale",
    ),
    Guard(
        "seal: the request's own", "I2", SEALS, "self.request_is_genuine(promotion)", "True", CHANGED_RECORD
    ),
    # --- git
    Guard(
        "commit: only on the value that was shown",
        "I2",
        WRITER,
        "if image.version != edit.old:",
        NOBODY,
        "tests/test_gitops.py::test_a_changed_value_is_stale",
    ),
    Guard(
        "commit: looks for its own before it gives up",
        "I1",
        WRITER,
        "find(mirror, self._edits[number], committer=self._hand.committer) or why",
        "why",
        "tests/test_gitops.py::test_a_commit_that_got_through_unseen_is_not_made_again",
    ),
    Guard("commit: done is what the host took", "I8", WRITER, "if is_done:", "if True:", I8_BRANCH),
    Guard("commit: never a second time", "I1", WRITER, "require_first(mirror, edit)", "pass", I1_BACK),
    Guard(
        "find: only our own commits",
        "I8",
        WRITER,
        "logged.committer == committer and ",
        "",
        "tests/test_gitops.py::test_find_knows_its_own_commit_alone",
    ),
    # --- what people see
    Guard(
        "card: shows what is true", "I12", ANNOUNCING, "if digest == card.shown:", "if card.shown:", I12_READ
    ),
    Guard(
        "card: once more, a lease later",
        "I12",
        ANNOUNCING,
        "if card.is_confirmed or card.edited_at is None:",
        "if True:",
        "tests/test_announcing.py::test_an_older_edit_that_arrives_last_is_put_right",
    ),
    Guard("thread: only what was not told", "I12", ANNOUNCING, "after=card.told", "after=0", I12_READ),
    # --- the worker
    Guard(
        "worker: renews what it works on",
        "I12",
        WORKER,
        "await self.queue.renew(list(self._running), lease=self.lease)",
        "pass",
        I12_BESIDE,
    ),
    Guard(
        "worker: rests with the edition that it knew",
        "I10",
        WORKER,
        "edition=edition, after=after)",
        "edition=(await self.engine.store.load(id)).edition, after=after)",
        I10_DURING,
    ),
    Guard(
        "worker: gives back what it leaves",
        "I10",
        WORKER,
        "for id in {*left, *self._again}:",
        "for id in ():",
        "tests/test_worker.py::test_what_is_left_at_the_end_is_given_back_at_once",
    ),
    # --- git against the store
    Guard("reconcile: only the last of a target", "I3", RECONCILING, ' if is_last else ""', "", I3_SWEPT),
    Guard(
        "reconcile: only what waits to be written",
        "I3",
        RECONCILING,
        "promotion.phase is Phase.APPROVED and ",
        "",
        "tests/test_reconciling.py::test_a_commit_that_contradicts_its_record_is_only_told",
    ),
)


def main() -> int:
    """Take out every guard, or those that are named; 1 where one survived."""
    parser = argparse.ArgumentParser(prog="python -m chaos.guards", description=__doc__)
    parser.add_argument("--only", action="append", choices=[each.name for each in GUARDS], help="this guard")
    only = parser.parse_args().only
    guards = [each for each in GUARDS if not only or each.name in only]
    if not _all_pass({CONTROL, *(each.test for each in guards)}):
        _say("The tests fail although no guard is missing; mend that first.")
        return 1
    _say("| guard | invariant | test | caught |\n|---|---|---|---|")
    survived = 0
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for guard, verdict in zip(guards, pool.map(try_without, guards), strict=True):
            _say(f"| {guard.name} | {guard.invariant} | {guard.test.partition('::')[2]} | {verdict} |")
            survived += verdict is not Verdict.CAUGHT
    _say(f"{len(guards) - survived} of {len(guards)} guards are missed by a test when they are gone.")
    return int(survived > 0)


def try_without(guard: Guard) -> Verdict:
    """Copy the project, take the guard out of the copy, and run its test there."""
    with tempfile.TemporaryDirectory(prefix="guards-") as name:
        folder = Path(name)
        _copy(folder)
        file = folder / guard.file
        text = file.read_text(encoding="utf-8")
        if text.count(guard.removed) != 1:
            return Verdict.LOST
        file.write_text(text.replace(guard.removed, guard.instead), encoding="utf-8")
        return _verdict(_run(folder, [CONTROL, guard.test]))


def _verdict(done: subprocess.CompletedProcess[str]) -> Verdict:
    if done.returncode not in (ALL_PASSED, SOME_FAILED) or CONTROL in done.stdout:
        return Verdict.BROKEN
    return Verdict.CAUGHT if done.returncode == SOME_FAILED else Verdict.SURVIVED


def _all_pass(tests: set[str]) -> bool:
    with tempfile.TemporaryDirectory(prefix="guards-") as name:
        _copy(Path(name))
        return _run(Path(name), sorted(tests)).returncode == ALL_PASSED


def _copy(folder: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)


def _run(folder: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What pytest says; it names the first test that fails, and ends there."""
    options = ["-x", "-q", "--tb=no", "-n", "0", "-p", "no:randomly", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, f"--timeout={SECONDS_FOR_A_TEST}", *tests]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
