"""What a refusal means: the hub's statuses and error headers, and those of other servers, in words that say what to do.

Without a token a hub answers 401 for what does not exist as for what is private, so that the sentence must leave both open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jand.download.repository import shown_url
from jand.download.retry import EXPIRED, TEMPORARY, TemporaryFailureError
from jand.errors import (
    DownloadError,
    DownloadRefusedError,
    HubGatedError,
    HubNotFoundError,
    HubUnauthorizedError,
    HubUnavailableError,
    RateLimitedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.download.web import Answer

HOW_TO_SIGN_IN: Final = "set HF_TOKEN, or put a token into the hub's token file (huggingface-cli login)"
LATER: Final = "it is tried again by itself"
_LONGEST_MESSAGE: Final = 200


def failure_of(answer: Answer, what: str) -> TemporaryFailureError:
    """Return the failure for an answer whose status says that it may be better later."""
    message = f"cannot download {what}: {shown_url(answer.asked)} answers {answer.status}"
    error: DownloadError
    if answer.status == 429:
        error = RateLimitedError(message + ", too many requests", hint="a token (HF_TOKEN) has higher limits; " + LATER)
    else:
        error = HubUnavailableError(message, hint=LATER)
    return TemporaryFailureError(error, answer.wait_s)


def is_temporary(answer: Answer) -> bool:
    """Whether another attempt, with a newly signed address where there was one, may succeed."""
    return answer.status in TEMPORARY or (answer.redirected and answer.status in EXPIRED)


def hub_refusal(
    status: int, headers: Mapping[str, str], repository: str, what: str, *, has_token: bool
) -> DownloadError:
    """Return the error for a *status* of the hub itself about *what*, a file or the listing of *repository*."""
    code = headers.get("X-Error-Code", "")
    subject = f"cannot download {what}"
    page = f"https://huggingface.co/{repository}"
    if code == "GatedRepo":
        cause = "your account has not been let in" if has_token else "its owner wants to know who downloads it"
        hint = f"accept the terms at {page}" + ("" if has_token else f", then {HOW_TO_SIGN_IN}")
        return HubGatedError(f"{subject}: {repository} is gated, {cause}", hint=hint)
    if code == "RevisionNotFound":
        return HubNotFoundError(
            f"{subject}: {repository} has no such revision", hint='leave "@revision" out of the origin, or correct it'
        )
    if code == "EntryNotFound":
        return HubNotFoundError(f"{subject}: {repository} has no such file", hint=f"see {page}/tree/main for its files")
    if code == "RepoNotFound" or status in {404, 410}:
        if has_token:
            return HubNotFoundError(
                f"{subject}: there is no repository {repository}, or it is not shown to this token",
                hint="correct the origin",
            )
        hint = f"correct the origin, or, if it is private, {HOW_TO_SIGN_IN}"
        return HubNotFoundError(f"{subject}: {repository} does not exist, or is private", hint=hint)
    if status == 401:
        cause = "the hub does not accept the token" if has_token else "the hub wants a token"
        return HubUnauthorizedError(
            f"{subject}: {cause}", hint=("renew the token: " if has_token else "") + HOW_TO_SIGN_IN
        )
    said = headers.get("X-Error-Message", "")[:_LONGEST_MESSAGE]
    return DownloadRefusedError(
        f"{subject}: the hub answers {status}" + (f", {said}" if said else ""), hint=f"see {page}"
    )


def plain_refusal(answer: Answer, what: str) -> DownloadError:
    """Return the error for a status of a server that is no hub."""
    message = f"cannot download {what}: {shown_url(answer.asked)} answers {answer.status}"
    if answer.status in {404, 410}:
        return HubNotFoundError(message + ", there is no such file", hint="correct download_url")
    if answer.status < 400:
        return DownloadRefusedError(message + ", and no file", hint="give the address of the file itself")
    return DownloadRefusedError(message, hint="give an address that can be fetched without signing in")
