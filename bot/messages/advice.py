"""What to do next when a rollout did not come to a good end."""

from __future__ import annotations

from bot.core.outcome import Outcome

BEGUN = "The commit stays: promote a newer version, or roll back."
NEXT = {
    Outcome.SYNC_FAILED: "Mend what the message names, then press Sync in Argo CD; or roll back.",
    Outcome.DEGRADED: "Look at the pods and their logs. If it recovers within half an hour, I say so; else roll back.",
    Outcome.NOT_PICKED_UP: (
        "Argo CD does not look at the branch: press Refresh there, and see whether its repo server reaches git."
    ),
    Outcome.WINDOW_CLOSED: "When the window opens, Argo CD goes on by itself; after that press Refresh there.",
    Outcome.NOT_SYNCED: "Press Sync in Argo CD. If it comes right within half an hour, I say so.",
    Outcome.CANNOT_RENDER: (
        "Try the chart with these values on your machine. If the git host stumbled, it heals by itself; else roll back."
    ),
    Outcome.MISMATCH: (
        "Something else sets the image: a parameter of the application, an image updater, or another key of the file."
    ),
    Outcome.STUCK: "Terminate the operation in Argo CD, then press Sync there.",
    Outcome.TIMED_OUT: "It may still come; I say so within half an hour. Else look at it in Argo CD, or roll back.",
    Outcome.UNREACHABLE: "The commit is pushed, and Argo CD may well roll it out. Look there; I cannot.",
    Outcome.TOKEN_EXPIRED: "Give the bot a new token (ARGOCD_TOKEN) and restart it. The commit is pushed; look in Argo CD.",
    Outcome.NO_PERMISSION: "Let the bot's account read it (applications, get). The commit is pushed; look in Argo CD.",
    Outcome.MISSING: "Create the application in Argo CD, or put its right name and project into promote.yaml.",
    Outcome.DELETED: "The values file has changed, but nothing deploys it any more.",
    Outcome.NOT_TRACKED: "Point the application at this branch and file, or put the right one into promote.yaml.",
    Outcome.LOST: "Somebody rewrote the branch. Look at its history, then ask for the promotion again.",
}


def advice(outcome: Outcome | None) -> str:
    """The next step, in a sentence or two."""
    return NEXT.get(outcome, BEGUN) if outcome else BEGUN
