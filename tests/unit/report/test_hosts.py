"""Which host ran what, in every report; and that no site says what a host is called."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.base.activity import Activity
from lab.gate import results
from lab.gate.compare import CellDifference, Difference, compare_builds
from lab.record import CellResult, Host, LaneRecord, LaneStep, RunResult, Status
from lab.report import markdown, run_notes
from lab.report.site import one_page
from lab.report.site.model import HostNumbers
from lab.report.site.publish import publish_site
from tests.builders.cells import cell, done, run_with
from tests.builders.processes import run_main
from tests.builders.runs import host, run_of

ALPHA, BETA = host(name="alpha.example"), host(name="beta.example", kernel="6.18", acceleration="KVM")


def lane(label: str, of: Host | None, image: str = "1") -> LaneRecord:
    return LaneRecord(
        guest=label.partition(" ")[0], label=label, host=of, image=image * 64, fork="memory", seconds={}
    )


def on_two_hosts(*more: CellResult) -> RunResult:
    """A run of which one guest was on one host, and the cells of the other one on both."""
    cells = [
        cell("debian-12", lane="debian-12"),
        cell("debian-13", lane="debian-13"),
        cell("debian-13", "podman", lane="debian-13 #2"),
        cell("debian-14", status=Status.NOT_RUN, reason="no image"),
    ]
    lanes = [lane("debian-12", ALPHA), lane("debian-13", ALPHA), lane("debian-13 #2", BETA)]
    return run_of(*cells, *more, lanes=lanes)


def test_hosts_that_are_alike_are_described_once() -> None:
    lanes = [lane(f"debian-13 #{number}", host(name=f"runner-{number}")) for number in range(2, 5)]
    text = markdown.render_run(run_of(cell(), lanes=[*lanes, lane("debian-12", BETA)]))
    assert text.count("\n- libvirt 11.3.0") == 2
    assert "\n- hosts runner-2, runner-3, runner-4: Debian, kernel 6.12, 2 CPUs" in text


def test_a_cell_whose_trials_were_on_another_host_is_told_as_such() -> None:
    run = on_two_hosts(cell("debian-12", "podman", lane="debian-12", trials_lane="debian-12 #2"))
    run.run.lanes.append(lane("debian-12 #2", BETA))
    [line] = run_notes.describe_hosts(run)[2:]
    assert line.startswith("debian-12 podman 0.10.8: its suite ran on alpha.example; its remedies and changes")
    assert line.endswith("on beta.example")


# -- what is published


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = on_two_hosts()
    run.run.merged = [run.run.model_copy(update={"host": BETA})]
    run.run.host = ALPHA
    (tmp_path / "run").mkdir()
    run.write(tmp_path / "run")
    return tmp_path / "run"


def texts(site: Path) -> str:
    return "".join(file.read_text() for file in site.rglob("*") if file.is_file())


def test_a_site_numbers_hosts_and_does_not_name_them(folder: Path, tmp_path: Path) -> None:
    other = on_two_hosts()
    other.run.id = "other"
    other.run.lanes.reverse()
    (tmp_path / "other").mkdir()
    other.write(tmp_path / "other")
    publish_site([folder, tmp_path / "other"], tmp_path / "site")
    text = texts(tmp_path / "site")
    assert not re.search(r"(alpha|beta)\.example", text)
    assert "host 1 ran 2 cells: debian-12, debian-13 (stock)" in text
    # A host has the same number in all runs.
    for run in ("20261124-160000", "other"):
        text = (tmp_path / "site" / "runs" / f"{run}.html").read_text()
        assert "host 1: Debian, kernel 6.12" in text
        assert "host 2: Debian, kernel 6.18" in text
    page = one_page.render_one_page(RunResult.read(folder), folder)
    assert "alpha" not in page
    assert "host 2: Debian, kernel 6.18" in page


def test_a_publisher_may_name_the_hosts(
    folder: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    assert run_main(monkeypatch, "publish", folder, "-o", site, "--host-names") == 0
    assert "alpha.example: Debian, kernel 6.12" in texts(site)
    assert not home.exists()


def test_what_a_run_over_several_hosts_tells_of_them_is_published_without_their_names(tmp_path: Path) -> None:
    published = {
        "gamma.example was lost": "host 2 was lost",
        "the lab on alpha.example ended with exit status 4: x": "the lab on host 1 ended with exit status 4: x",
        "host delta.example: no: `bring an image`": "host host 3: no: `bring an image`",
        "lost: gamma.example was lost; delta.example was lost": "lost: host 2 was lost; host 3 was lost",
        "shard 2/4 was lost": "shard 2/4 was lost",
    }
    label = "alpha.example: debian-13 #2"
    cells = [
        cell(lane=label, trials_lane=label, retried=[*published], status=Status.FAIL),
        *(cell(variant=f"v{n}", status=Status.ERROR, reason=reason) for n, reason in enumerate(published)),
    ]
    names = ["alpha.example", "gamma.example", "delta.example", "epsilon.example"]
    steps = [
        LaneStep(
            lane=f"{name}: debian-13",
            activity=Activity.IMAGE,
            text=f"image: on its way from {names[0]}",
            began=datetime(2026, 11, 24, 16, tzinfo=UTC),
            seconds=1,
        )
        for name in names
    ]
    run = run_of(
        *cells,
        lanes=[lane(label, ALPHA).model_copy(update={"guest": "debian-13"})],
        host_names=names,
        steps=steps,
    )
    numbered = HostNumbers().run(run)
    first, *others = numbered.cells
    assert (
        first.history.lane == first.history.trials_lane == numbered.run.lanes[0].label == "host 1: debian-13 #2"
    )
    assert first.history.retried == [cell.reason for cell in others] == [*published.values()]
    folder = tmp_path / "run"
    folder.mkdir()
    run.write(folder)
    publish_site([folder], tmp_path / "site")
    pages = {file.name: file.read_text() for file in (tmp_path / "site").rglob("*.html")}
    assert "host 1: debian-13" in pages["20261124-160000.html"]
    assert "host 4: debian-13" in pages["20261124-160000.html"]
    named = [name for name, text in pages.items() if re.search(r"(alpha|gamma|delta|epsilon)\.example", text)]
    assert named == []


# -- the gate


def compared(old: RunResult, new: RunResult) -> list[CellDifference]:
    return compare_builds(*(results.reduce_run(run, Path("run"), "0.10.8") for run in (old, new))).cells


def test_each_cell_of_a_merged_run_is_compared_by_what_it_ran_on_itself() -> None:
    cells = [done(Status.PASS, lane="debian-13"), done(Status.PASS, variant="podman", lane="debian-13 #2")]
    before = run_with(*cells, lanes=[lane("debian-13", ALPHA), lane("debian-13 #2", ALPHA)])
    now = run_with(*cells, lanes=[lane("debian-13", ALPHA), lane("debian-13 #2", BETA, image="2")])
    same, other = compared(before, now)
    assert (same.difference, other.difference) == (Difference.UNCHANGED, Difference.ENVIRONMENT_CHANGED)
    assert [change.what for change in other.environment] == ["image", "host", "acceleration"]


def test_hosts_of_other_names_are_no_other_environment() -> None:
    of = [run_with(done(Status.PASS, lane="debian-13"), lanes=[lane("debian-13", host(name=n))]) for n in "ab"]
    assert [cell.environment for cell in compared(*of)] == [[]]


def test_a_host_whose_lanes_were_refused_kvm_in_other_words_is_one_host() -> None:
    lanes = [
        lane(f"debian-13 #{time}", host(acceleration="emulation", acceleration_reason=f"QEMU fails: {time}"))
        for time in (2, 3)
    ]
    run = run_of(cell(lane="debian-13 #3"), lanes=[*lanes, lane("debian-12", BETA)])
    assert len(run.run.hosts()) == 2
    # Which words a host's first lane has is left open.
    assert run_notes.describe_hosts(run) == ["host.example ran 1 cell: debian-13", "beta.example ran no cell"]


def test_a_host_that_has_kvm_for_some_guests_and_emulates_others_is_one_host(tmp_path: Path) -> None:
    why = {"acceleration_reason": "this host has no processor for aarch64"}
    kvm, emulated = host(acceleration="kvm", acceleration_reason="it works"), host(**why)
    lanes = [lane("debian-13", kvm), lane("debian-13-arm64", emulated)]
    cells = [cell("debian-13", lane="debian-13"), cell("debian-13-arm64", lane="debian-13-arm64")]
    run = run_of(*cells, lanes=lanes, finished=datetime(2026, 11, 24, 16, 10, tzinfo=UTC))
    assert run_notes.describe_hosts(run) == []
    assert run_notes.describe_time(run).endswith(" of 2 x 0:10:00")
    text = markdown.render_run(run)
    assert text.count("\n- host: Debian, kernel 6.12, 2 CPUs") == text.count("\n- libvirt 11.3.0") == 1
    assert "\n- guests under kvm: it works\n- guests under emulation: this host has no processor for" in text
    assert "; ran on host.example, kvm\n" in text
    assert "; ran on host.example, emulation\n" in text
    # Each cell is compared by what its own guest ran under.
    guests = ("debian-13", "debian-13-arm64")
    judged = run_with(*(done(Status.PASS, guest=name, lane=name) for name in guests), lanes=lanes)
    ours = [results.environment_of(cell, judged)["acceleration"] for cell in judged.cells]
    assert ours == ["kvm", "emulation"]
    folder = tmp_path / "run"
    folder.mkdir()
    run.write(folder)
    publish_site([folder], tmp_path / "site")
    page = (tmp_path / "site" / "runs" / "20261124-160000.html").read_text()
    assert page.count("<dt>host</dt>") == 1
    assert "<dd>kvm: it works</dd>" in page
    assert f"<dd>emulation: {why['acceleration_reason']}</dd>" in page
