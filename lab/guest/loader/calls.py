"""Run programs one after another in this interpreter, and send what comes of them: lines of JSON.

A program reads its argument, which is JSON, from `sys.argv[1]` and prints its result as JSON. It may call
`keep(name, content)` to send a file at once. The lines are {"file": name, "content": base64}, and at the end
{"results": [...]} or {"failed": text}; each has the fields of `about`, too.
"""

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import traceback


def send(out, about, line):
    out.write(json.dumps({**about, **line}).encode() + b"\n")
    out.flush()


def run(calls, out, about):
    """Run `calls`, each a name, compiled code and an argument. Returns why one failed, None if none did."""

    def keep(name, content):
        send(out, about, {"file": name, "content": base64.b64encode(content).decode()})

    results = []
    try:
        for name, code, argument in calls:
            # Others read what a program makes. The agent itself has a umask of 077, and sudo may have one, too.
            os.umask(0o022)
            sys.argv[1:] = [argument]
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, {"__name__": "__main__", "keep": keep})
            results.append(json.loads(printed.getvalue()))
    except subprocess.CalledProcessError as error:
        return "%s: %s%s" % (" ".join(error.cmd), error.stdout, error.stderr)
    except (OSError, SystemExit) as error:
        return "%s: %s" % (name, error)
    except BaseException:
        return traceback.format_exc()
    send(out, about, {"results": results})
    return None
