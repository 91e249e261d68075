"""Run nextest with the lab's own profile, and write down each test's result as it comes.

Usage: run_nextest.py FOLDER SECONDS ORDER COMMAND...

COMMAND is `cargo-nextest nextest run` with its arguments, without a profile. A test may take SECONDS. ORDER is
a JSON list of nextest's expressions: the tests that they choose are run in its order, the others by name.
FOLDER gets report.jsonl, junit.xml and nextest.toml. The report has nextest's own lines with each test's output
cut, and at the end a line for each failed test that says how it ended. Exit status: nextest's. Runs as the
suite's user.
"""

import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

# What is kept of a test's output: most of it is the end, where a panic is.
HEAD, TAIL = 2_000, 16_000
PROFILE = """\
[profile.lab]
retries = 0
test-threads = 1
slow-timeout = { period = "%(seconds)ds", terminate-after = 1, grace-period = "2s" }
failure-output = "never"
success-output = "never"
status-level = "all"

[profile.lab.junit]
path = "%(junit)s"
store-success-output = false
store-failure-output = false
"""
# Of tests that wait, nextest starts those with the highest priority first, and of these the first by name.
PRIORITY = """
[[profile.lab.overrides]]
filter = %(filter)s
priority = %(priority)d
"""
# nextest's priorities are from -100 to 100. More tests than that share them, and neighbours go by their names.
HIGHEST, LEVELS = 100, 201
# What Rust's test harness exits with after a failed test.
HARNESS_FAILED = 101


def priorities(order):
    """The part of nextest's profile by which it runs tests in this order."""
    levels = max(len(order), LEVELS)
    return "".join(
        PRIORITY
        # A basic string of TOML has the escapes of one in JSON.
        % {"filter": json.dumps(expression), "priority": HIGHEST - number * LEVELS // levels}
        for number, expression in enumerate(order)
    )


def cut(text):
    """The start and the end of a text, and how much is missing between them."""
    missing = len(text) - HEAD - TAIL
    return (
        text if missing <= 0 else "%s\n... (%d more characters) ...\n%s" % (text[:HEAD], missing, text[-TAIL:])
    )


def names(suite):
    """What a binary is called in JUnit files, and in events, by nextest's event of it."""
    crate, name, kind = (suite[key] for key in ("crate", "test_binary", "kind"))
    called = "%s::%s" % (crate, name)
    return {"lib": crate, "test": called}.get(kind, "%s::%s/%s" % (crate, kind, name)), called


def ended(failure):
    """How a test's process ended, by its failure in a JUnit file; empty if an assertion failed."""
    kind, message = failure.get("type", ""), failure.get("message", "")
    ended_by = re.search(r"signal (\d{1,2})\b", message) if kind == "test abort" else None
    if ended_by:
        signals = {number.value: number.name for number in signal.Signals}
        return "was ended by %s" % signals.get(int(ended_by[1]), "signal " + ended_by[1])
    status = re.search(r"exit code (-?\d{1,4})\b", kind)
    return "ended with exit status " + status[1] if status and int(status[1]) != HARNESS_FAILED else ""


def endings(junit, called):
    """A line for each failed test of nextest's JUnit file. Its stream of events does not tell signals."""
    for suite in ET.parse(junit).getroot().iter("testsuite"):
        binary = suite.get("name")
        for case in suite.iter("testcase"):
            failure = case.find("failure")
            if failure is not None:
                name = "%s$%s" % (called.get(binary, binary), case.get("name"))
                yield "%s\n" % json.dumps({"type": "ending", "name": name, "exit": ended(failure)})


def main():
    folder, seconds, order, command = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:]
    folder.mkdir(parents=True, exist_ok=True)
    junit, config = folder / "junit.xml", folder / "nextest.toml"
    config.write_text(PROFILE % {"seconds": seconds, "junit": junit} + priorities(order))
    ended_early = []
    # The signal that ends the suite goes to nextest as well, which then ends the test that runs.
    signal.signal(signal.SIGTERM, lambda *_: ended_early.append(True))
    child = subprocess.Popen(
        [*command, "--config-file", str(config), "--user-config-file", "none", "--profile", "lab"],
        env=dict(os.environ, NEXTEST_EXPERIMENTAL_LIBTEST_JSON="1", CARGO_TERM_COLOR="never"),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    called = {}
    with (folder / "report.jsonl").open("w", buffering=1, encoding="utf-8", errors="replace") as report:
        for line in child.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # No event.
                continue
            if event.get("type") == "suite" and "nextest" in event:
                called.update([names(event["nextest"])])
            if "stdout" in event:
                event["stdout"] = cut(str(event["stdout"]))
            if "reason" in event:
                # Only a test that met its limit has one.
                event["reason"] = "was killed at its time limit of %d s" % seconds
            # What ends after that signal did not end by itself.
            if not ended_early:
                report.write("%s\n" % json.dumps(event))
        status = child.wait()
        if junit.exists():
            report.writelines(endings(junit, called))
    # A shell's way to tell a signal.
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main())
