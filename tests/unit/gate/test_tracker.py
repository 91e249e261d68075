"""Which bugs a tracker on the loopback interface calls closed, and what becomes of one that does not answer."""

import json
from collections.abc import Iterator

import pytest

from lab.base.data import SMALL_FILE
from lab.base.errors import UsageError
from lab.gate import tracker
from tests.builders.mirror import Answer, Mirror, Request, redirect, serving, status, well

TOKEN = "ghp_madeUpForThisTest"
OPEN, CLOSED, PULL = (
    f"https://github.com/{path}" for path in ("b/b/issues/1", "b/b/issues/2#issuecomment-7", "b/b/pull/3")
)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A tracker with an open issue, a closed one and a closed pull request."""
    with serving() as mirror:
        mirror.files = {
            "/repos/b/b/issues/1": json.dumps({"state": "open", "state_reason": None, "title": "x"}).encode(),
            "/repos/b/b/issues/2": json.dumps({"state": "closed", "state_reason": "not_planned"}).encode(),
            "/repos/b/b/issues/3": json.dumps({"state": "closed"}).encode(),
        }
        for name in (tracker.SERVER, tracker.TOKEN):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(tracker.API, mirror.url)
        yield mirror


def test_each_bug_is_asked_once_and_says_how_it_was_closed(served: Mirror) -> None:
    answers = tracker.ask_about_bugs([OPEN, CLOSED, PULL, CLOSED])
    assert answers.closed == {CLOSED: "closed as not planned", PULL: "closed"}
    assert (answers.failures, answers.unasked) == ([], [])
    assert [path for path, _ in served.requests] == [f"/repos/b/b/issues/{number}" for number in (1, 2, 3)]


@pytest.mark.parametrize(
    "link",
    [
        "https://bugs.debian.org/1",
        "https://github.com.example.org/b/b/issues/1",
        "https://github.com/b/b/issues",
        "https://github.com/../b/issues/1/../../../user",
        "https://github.com/b/b/issues/١",
    ],
)
def test_what_is_no_issue_of_the_tracker_is_not_asked(served: Mirror, link: str) -> None:
    assert tracker.ask_about_bugs([link]).unasked == [link]
    assert served.requests == []


def test_an_issue_that_moved_is_followed_and_only_the_tracker_gets_the_token(
    served: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracker.TOKEN, f"{TOKEN}\n")
    headers: list[str | None] = []

    def keep(then: Answer) -> Answer:
        def answer(request: Request, body: bytes) -> None:
            headers.append(request.headers.get("Authorization"))
            then(request, body)

        return answer

    with serving() as other:
        other.files["/moved"] = served.files["/repos/b/b/issues/2"]
        other.faults["/moved"] = [keep(well)]
        served.faults["/repos/b/b/issues/2"] = [keep(redirect(f"{other.url}/moved"))]
        assert CLOSED in tracker.ask_about_bugs([CLOSED]).closed
    assert headers == [f"Bearer {TOKEN}", None]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (status(401), "HTTP 401: the token of GITHUB_TOKEN is not accepted"),
        (status(404), "HTTP 404: no such issue, or one that needs a token in GITHUB_TOKEN"),
        (status(429), "HTTP 429: too many questions"),
        (status(503), "HTTP 503: try it again later"),
        (b"<html>", "the tracker's answer is no issue"),
        (b'{"state": "\\u001b[2Jopen"}', "the tracker's answer is no issue"),
        (b"[" * 100_000, "the tracker's answer is no issue"),
        (b'"' + b"x" * SMALL_FILE + b'"', "the tracker's answer is no issue"),
    ],
)
def test_a_bug_without_an_answer_keeps_no_other_from_being_asked(
    served: Mirror, monkeypatch: pytest.MonkeyPatch, answer: Answer | bytes, told: str
) -> None:
    monkeypatch.setenv(tracker.TOKEN, TOKEN)
    if isinstance(answer, bytes):
        served.files["/repos/b/b/issues/1"] = answer
    else:
        served.faults["/repos/b/b/issues/1"] = [answer]
    answers = tracker.ask_about_bugs([OPEN, CLOSED])
    assert answers.closed == {CLOSED: "closed as not planned"}
    [failure] = answers.failures
    assert failure.startswith(f"{OPEN}: {told}")
    assert TOKEN not in failure


def test_after_a_tracker_that_is_gone_nothing_more_is_asked(
    monkeypatch: pytest.MonkeyPatch, served: Mirror
) -> None:
    with serving() as gone:
        pass
    monkeypatch.setenv(tracker.API, gone.url)
    answers = tracker.ask_about_bugs([OPEN, CLOSED])
    first, second = answers.failures
    assert first.startswith(f"{OPEN}: the tracker did not answer: ")
    assert "Connection refused" in first
    assert second == f"{CLOSED}: not asked after that"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (tracker.TOKEN, "two words", "GITHUB_TOKEN holds a character that no token has"),
        (tracker.TOKEN, "töken", "GITHUB_TOKEN holds a character that no token has"),
        (tracker.API, "http://api.example.org", "GITHUB_TOKEN would be sent to it without encryption"),
        (tracker.API, "http://a:b", "GITHUB_API_URL is no address"),
    ],
)
def test_a_token_or_an_address_that_cannot_be_used_is_refused_without_the_token(
    served: Mirror, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(tracker.TOKEN, TOKEN)
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message) as refused:
        tracker.ask_about_bugs([OPEN])
    assert TOKEN not in str(refused.value)
    assert name == tracker.API or value not in str(refused.value)
    assert served.requests == []
