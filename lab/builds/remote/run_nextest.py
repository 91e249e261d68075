"""Run nextest with the lab's own profile, and write down each test's result as it comes.

Usage: run_nextest.py FOLDER SECONDS ORDER COMMAND...

COMMAND is `cargo-nextest nextest run` with its arguments, without a profile. A test may take SECONDS. ORDER is
a JSON list of nextest's expressions: the tests that they choose are run in its order, the others by name.
FOLDER gets report.jsonl, junit.xml and nextest.toml. The report has the limit, nextest's own lines with each
test's output cut, and at the end a line for each failed test that says how. Exit status: nextest's. Runs as
the suite's user.
"""

import json
import os
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


def cut(text):
    """The start and the end of a text, and how much is missing between them."""
    missing = len(text) - HEAD - TAIL
    return (
        text if missing <= 0 else "%s\n... (%d more characters) ...\n%s" % (text[:HEAD], missing, text[-TAIL:])
    )


def shortened(line):
    try:
        event = json.loads(line)
    except ValueError:
        return line
    if not isinstance(event, dict) or len(str(event.get("stdout", ""))) <= HEAD + TAIL:
        return line
    return "%s\n" % json.dumps(dict(event, stdout=cut(str(event["stdout"]))))


def endings(junit):
    """A line for each failed test of nextest's JUnit file. Its stream of events does not tell signals."""
    for suite in ET.parse(junit).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            failure = case.find("failure")
            if failure is not None:
                # An abort is in the message, an exit status in the type.
                is_abort = failure.get("type") == "test abort"
                how = failure.get("message" if is_abort else "type", "")
                name = "%s$%s" % (suite.get("name"), case.get("name"))
                yield "%s\n" % json.dumps({"type": "ending", "name": name, "how": how[:200]})


def priorities(order):
    """The part of nextest's profile by which it runs tests in this order."""
    each = max(len(order), LEVELS)
    return "".join(
        PRIORITY
        # A basic string of TOML has the escapes of one in JSON.
        % {"filter": json.dumps(expression), "priority": HIGHEST - number * LEVELS // each}
        for number, expression in enumerate(order)
    )


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
    with (folder / "report.jsonl").open("w", buffering=1, encoding="utf-8", errors="replace") as report:
        report.write("%s\n" % json.dumps({"type": "limit", "seconds": seconds}))
        for line in child.stdout:
            # What ends after that signal did not end by itself.
            if not ended_early:
                report.write(shortened(line))
        status = child.wait()
        if junit.exists():
            report.writelines(endings(junit))
    # A shell's way to tell a signal.
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main())
