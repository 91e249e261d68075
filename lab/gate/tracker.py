"""Whether bugs are closed, asked of GitHub: https://docs.github.com/en/rest/issues/issues#get-an-issue."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import httpx2

from lab.base.data import SMALL_FILE, FailFastModel, parse_json
from lab.base.errors import UsageError
from lab.base.files import join_lines
from lab.base.wait import Deadline, DeadlineExpired, call_within

# A runner of GitHub's sets both; they are other ones where it belongs to a company's own server.
SERVER, API = "GITHUB_SERVER_URL", "GITHUB_API_URL"
PUBLIC = {SERVER: "https://github.com", API: "https://api.github.com"}
TOKEN = "GITHUB_TOKEN"
# Printable ASCII without spaces: anything else would be quoted in the error of the request that has it.
TOKEN_FORM = re.compile(r"[!-~]+")
ISSUE = re.compile(r"/(?P<repository>[\w.-]+/[\w.-]+)/(?:issues|pull)/(?P<number>\d{1,12})/?(?:#.*)?", re.ASCII)
# A connection on which no byte arrives for so many seconds is dead; a whole answer may take so many.
TIMEOUT = httpx2.Timeout(30.0)
ANSWER_SECONDS = 60.0
# What is quoted of an answer.
LONGEST = 200


class TrackerIssue(FailFastModel):
    """What is read of an issue or a pull request."""

    state: Literal["open", "closed"]
    state_reason: str | None = None


@dataclass
class TrackerAnswers:
    """What the tracker said of bugs: how those that are closed were closed, by their links.

    `failures` are sentences about bugs that were asked about without an answer, `unasked` the links that are no
    issues of this tracker.
    """

    closed: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)


def ask_about_bugs(bugs: Iterable[str]) -> TrackerAnswers:
    """Ask GitHub about each of these links, with the token of the environment if there is one.

    After an answer that did not come, nothing more is asked. Raises UsageError for an address or a token that
    cannot be used.
    """
    answers = TrackerAnswers()
    server, api = (os.environ.get(name, "").rstrip("/") or PUBLIC[name] for name in (SERVER, API))
    with httpx2.Client(timeout=TIMEOUT, follow_redirects=True, headers=_make_headers(api)) as client:
        waiting = list(dict.fromkeys(bugs))
        while waiting:
            bug = waiting.pop(0)
            match = ISSUE.fullmatch(bug.removeprefix(server)) if bug.startswith(server) else None
            if match is None:
                answers.unasked.append(bug)
                continue
            address = f"{api}/repos/{match['repository']}/issues/{match['number']}"
            try:
                issue = call_within(partial(_ask, client, address), Deadline(ANSWER_SECONDS, "its answer"))
            except (httpx2.HTTPError, httpx2.InvalidURL, DeadlineExpired, ValueError) as error:
                answers.failures.append(f"{bug}: {_explain(error)}")
                if isinstance(error, httpx2.TransportError | DeadlineExpired):
                    answers.failures += [f"{other}: not asked after that" for other in waiting]
                    break
                continue
            if issue.state == "closed":
                reason = join_lines(issue.state_reason or "", LONGEST).replace("_", " ")
                answers.closed[bug] = f"closed as {reason}" if reason else "closed"
    return answers


def _make_headers(api: str) -> dict[str, str]:
    token = os.environ.get(TOKEN, "").strip()
    try:
        address = httpx2.URL(api)
    except httpx2.InvalidURL as error:
        raise UsageError(f"{API} is no address: {error}", hint="correct or unset it") from error
    if token and not TOKEN_FORM.fullmatch(token):
        raise UsageError(f"{TOKEN} holds a character that no token has", hint="set it again, or unset it")
    if token and address.scheme != "https" and address.host != "127.0.0.1":
        raise UsageError(
            f"{API} is {api}: {TOKEN} would be sent to it without encryption",
            hint=f"unset {TOKEN}, or use https",
        )
    accept = {"Accept": "application/vnd.github+json"}
    return accept | ({"Authorization": f"Bearer {token}"} if token else {})


def _ask(client: httpx2.Client, address: str) -> TrackerIssue:
    """Return the issue of an address. Raises HTTPError, and ValueError for an answer that is no issue."""
    with client.stream("GET", address) as response:
        response.raise_for_status()
        data = b""
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > SMALL_FILE:
                raise ValueError(f"an answer of more than {SMALL_FILE} bytes")
    return read_issue(data)


def read_issue(content: bytes) -> TrackerIssue:
    """Read a tracker's answer. Raises ValueError if it is no issue."""
    return TrackerIssue.model_validate(parse_json(content))


def _explain(error: Exception) -> str:
    """Say why a bug has no answer. The text of a server's answer is not quoted."""
    if isinstance(error, httpx2.HTTPStatusError):
        code = error.response.status_code
        hint = {
            401: f"the token of {TOKEN} is not accepted",
            403: f"refused; too many questions, or one that needs a token in {TOKEN}",
            404: f"no such issue, or one that needs a token in {TOKEN}",
            410: "the issue was deleted",
            429: f"too many questions; a token in {TOKEN} allows more",
        }.get(code, "try it again later")
        return f"HTTP {code}: {hint}"
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL | DeadlineExpired):
        return f"the tracker did not answer: {join_lines(str(error), LONGEST) or type(error).__name__}"
    return "the tracker's answer is no issue"
