"""Runs without the names of their hosts: a site is public, and what a host is called may not be.

A name is in the record of the host. In a run over several hosts it also stands before the names of its lanes,
and in what the run says of hosts that were lost.
"""

import re
from collections.abc import Mapping
from typing import Any

from lab.record import CellResult, Host, LaneRecord, RunInfo, RunResult

# How a run over several hosts says what happened on one of them (`lab/fleet`).
FAULT = re.compile(
    r"(?:^|: |; )(\S+) was lost"
    r"|the lab on (\S+) ended with exit status"
    r"|the result of (\S+) cannot be used"
    r"|, and (\S+) has \d+ MiB"
    r"|guests of (\S+) run without KVM"
    r"|(?:^|: )host (\S+): "
)
SEPARATOR = ": "


class HostNumbers:
    """Puts a number in place of each host's name, the same one in all runs of a site."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    def of(self, name: str) -> str:
        """What a host of this name is called instead."""
        return self._numbers.setdefault(name, f"host {len(self._numbers) + 1}") if name else ""

    def lane(self, label: str) -> str:
        """The label of a lane, which begins with its host in a run over several hosts."""
        host, separator, rest = label.partition(SEPARATOR)
        return f"{self.of(host)}{separator}{rest}" if separator else label

    def run(self, result: RunResult) -> RunResult:
        """A run without the names of its hosts."""
        info = self._info(result.run)
        return result.model_copy(update={"run": info, "cells": [self._cell(cell) for cell in result.cells]})

    def _info(self, of: RunInfo) -> RunInfo:
        update: Mapping[str, Any] = {
            "host": self._host(of.host),
            "lanes": [self._lane(lane) for lane in of.lanes],
            "merged": [self._info(each) for each in of.merged],
        }
        return of.model_copy(update=update)

    def _host(self, of: Host | None) -> Host | None:
        return of and of.model_copy(update={"name": self.of(of.name)})

    def _lane(self, of: LaneRecord) -> LaneRecord:
        return of.model_copy(update={"host": self._host(of.host), "label": self.lane(of.label)})

    def _cell(self, of: CellResult) -> CellResult:
        update: Mapping[str, Any] = {
            "lane": self.lane(of.lane),
            "trials_lane": self.lane(of.trials_lane),
            "retried": [self._text(fault) for fault in of.retried],
            "reason": self._text(of.reason) if of.status.could_not_run else of.reason,
        }
        return of.model_copy(update=update)

    def _text(self, text: str) -> str:
        """A fault without the names of the hosts that it tells of."""
        for name in {name for found in FAULT.findall(text) for name in found if name}:
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", self.of(name), text)
        return text


def without_names(run: RunResult) -> RunResult:
    """A run without the names of its hosts, which are numbered instead."""
    return HostNumbers().run(run)
