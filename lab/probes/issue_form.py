"""A GitHub issue form for the repository of boxlite that asks for the probe script's output."""

from collections.abc import Iterable
from pathlib import Path

import jinja2

from lab.probes import names, script

TEMPLATE = Path(__file__).with_name("issue_form.yml")


def text(sysctls: Iterable[str] = ()) -> str:
    """Return the form as YAML. It holds the whole script, so that it needs nothing beside itself."""
    environment = jinja2.Environment(  # noqa: S701 - YAML of the lab's own texts
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        command=script.command(sysctls).rstrip(),
        begin=f"===== {names.BEGIN}",
        end=f"===== {names.END}",
    )
