"""The documentation: links and commands exist, examples load, generated parts are up to date."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import click
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import BaseModel

from lab import catalog, causes
from lab.base.paths import PACKAGE, find_definitions
from lab.catalog import Guest, Set, loading, remedies
from lab.causes import before_sandbox, rule
from lab.cli import cli, completion, reference
from lab.fleet import inventory
from lab.fleet.inventory import HostEntry, ListenAddress
from lab.gate import baseline, expectations
from lab.record import Confidence, Outcome, RemedyOutcome, Status, TrialOutcome
from lab.repro.verdict import ClaimOutcome, Reproduction
from lab.verdict.words import WordsVerdict
from tests.builders.evidence import gathered

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "tests")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
OUT_OF_DATE = "generated parts are out of date; regenerate them: .venv/bin/python -m lab.cli.reference"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@cache
def parsed(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def inline(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from token.children or ()


def headings(page: Path) -> list[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    texts = [
        "".join(part.content for part in inside.children or ())
        for opening, inside in pairwise(parsed(page))
        if opening.type == "heading_open"
    ]
    return [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts]


def code(page: Path) -> list[Token]:
    return [token for token in parsed(page) if token.type in ("fence", "code_block")]


def example(page: str, file: str, folder: str = "guides") -> str:
    """Return the example file in a page: the code block whose first line is ```LANGUAGE FILE."""
    blocks = code(ROOT / "docs" / folder / page)
    [text] = [block.content for block in blocks if block.info.split()[1:] == [file]]
    return text


def cells_of_tables(page: str) -> set[str]:
    """Return the code spans in the tables of a page."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return set(re.findall(r"`([^`]+)`", "\n".join(line for line in lines if line.startswith("|"))))


@each_page
def test_every_link_leads_to_an_existing_file_and_heading(page: Path) -> None:
    links = [str(token.attrs["href"]) for token in inline(parsed(page)) if token.type == "link_open"]
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, heading = unquote(link).partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: there is no {target}"
        assert target.resolve().is_relative_to(ROOT)
        if heading:
            assert heading in headings(target), f"{link}: {target} has the headings {headings(target)}"


def test_every_measurement_is_listed_among_the_results_of_the_benchmarks() -> None:
    page = ROOT / "benchmarks" / "README.md"
    links = {str(token.attrs["href"]) for token in inline(parsed(page)) if token.type == "link_open"}
    files = sorted((ROOT / "docs" / "measurements").iterdir())
    assert [file.name for file in files if f"../docs/measurements/{file.name}" not in links] == []


def test_the_pictures_of_the_readme_exist_are_small_and_load_nothing() -> None:
    """A browser that shows them asks no other host, and nothing in them names a folder of a machine."""
    tokens = inline(parsed(ROOT / "README.md"))
    pictures = {str(token.attrs["src"]) for token in tokens if token.type == "image"}
    files = sorted((ROOT / "docs" / "pictures").iterdir())
    assert pictures == {str(file.relative_to(ROOT)) for file in files}
    assert sum(file.stat().st_size for file in files) <= 200_000
    for file in files:
        content = file.read_bytes().replace(b'xmlns="http://www.w3.org/2000/svg"', b"")
        assert not re.search(rb"https?:|@import|url\((?!#)|/home/|/tmp/|/root/|/var/", content), file


REGENERATE = """
import json
from lab.cli import reference
pages = reference.pages(reference.DOCS)
print(json.dumps({str(page): reference.regenerated(page.read_text()) for page in pages}))
"""


@cache
def regenerated_pages() -> dict[str, str]:
    """The pages as `python -m lab.cli.reference` writes them.

    In a process of its own, as that: click keeps the names of a command's help option from its first use, and
    in this process another test may have been the first.
    """
    words = [sys.executable, "-c", REGENERATE]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    pages: dict[str, str] = json.loads(done.stdout)
    return pages


@pytest.mark.parametrize("page", reference.pages(reference.DOCS), ids=lambda page: page.name)
def test_the_generated_parts_are_up_to_date(page: Path) -> None:
    assert page.read_text() == regenerated_pages()[str(page)], OUT_OF_DATE


def test_shell_completion_knows_the_commands_as_they_are() -> None:
    assert completion.TABLE.read_text() == completion.render_table(cli), OUT_OF_DATE


def test_every_generated_part_is_on_a_page() -> None:
    text = "".join(page.read_text() for page in reference.pages(reference.DOCS))
    assert sorted(part["name"] for part in reference.PART.finditer(text)) == sorted(reference.PARTS)


def commands(page: Path) -> list[str]:
    lines = [line.strip() for block in code(page) for line in block.content.splitlines()]
    lines += [token.content for token in inline(parsed(page)) if token.type == "code_inline"]
    # These are options of setup.sh itself.
    own = r"^\./setup\.sh (--dry-run(=\S+)?|--allow=\S+|--forbid=\S+|--with=\S+)"
    lines = [re.sub(own, "./setup.sh", line) for line in lines]
    return [line for line in lines if re.match(r"((\.venv/bin/)?lab|\./setup\.sh(?! test| host)) [a-z-]", line)]


@cache
def shipped() -> catalog.Catalog:
    return catalog.load_catalog()


@each_page
def test_every_command_names_existing_subcommands_options_and_definitions(page: Path) -> None:
    definitions = shipped()
    mine = {"debian-13-profiles", "hardened", "moved-home", "quiet-console", "userns-limit-64"}
    look_up: dict[str, Callable[[str], object]] = {
        "-g": definitions.guest,
        "-v": definitions.variant,
        "--set": definitions.set,
    }
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        # What follows `--` is a command of the guest.
        words = words[: words.index("--")] if "--" in words else words
        command: click.Command = cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            below = command.get_command(click.Context(command), words[0])
            if below is None:
                break
            command = below
            del words[0]
        assert command is not cli or words[:1] in (["--connect"], ["--version"]), f"no command: {line}"
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        for word, value in pairwise([*words, ""]):
            if word.startswith("-"):
                assert word.partition("=")[0] in options, f"no option {word}: {line}"
            if word in look_up and value not in mine and not value.isupper():
                look_up[word](value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("images", "cloud-init"):
        shutil.copytree(find_definitions() / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("file", ["images/debian-13-profiles.toml", "images/ubuntu-25.10.toml"])
def test_the_examples_of_guests_load(root: Path, file: str) -> None:
    (root / file).write_text(example("adding-a-guest.md", file))
    guest = catalog.load_catalog(root).guest(Path(file).stem)
    assert guest.image.origin


def test_the_example_of_a_variant_loads(root: Path) -> None:
    for name, kinds in (
        ("hardened", ["mount", "sysctl"]),
        ("moved-home", ["files", "limits"]),
        ("quiet-console", ["sysctl"]),
    ):
        file = f"cloud-init/variants/{name}.toml"
        (root / file).write_text(example("adding-a-variant.md", file))
        loading.load_catalog.cache_clear()
        assert list(catalog.load_catalog(root).variant(name).knobs) == kinds
    assert catalog.load_catalog(root).variant("quiet-console").knobs["sysctl"].settings() == {
        "kernel.printk": "3 4 1 7",
        "kernel.core_pattern": "|/bin/false %p",
        "net.ipv4.conf.eth0/1.forwarding": 0,
    }


def test_the_example_of_a_cause_loads_and_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    place = list(causes.list_causes()).index("home-noexec") + 1
    first, later = rule.CAUSES[:place], rule.CAUSES[place:]
    monkeypatch.setattr(rule, "CAUSES", first)
    exec(example("adding-a-cause.md", "lab/causes/before_sandbox.py"), vars(before_sandbox).copy())
    rule.CAUSES.extend(later)
    assert len(causes.list_causes()) == len(rule.CAUSES)
    assert causes.list_causes()["home-full"].explanation.count(". ") == 1
    message = "boxlite.errors.StorageError: storage error: No space left on device (os error 28)"
    [finding] = causes.diagnose_evidence(gathered(messages=(message,), control_failed=True))
    assert (finding.name, finding.confidence) == ("home-full", Confidence.LIKELY)
    assert causes.diagnose_evidence(gathered(control_failed=True)) == []


def test_the_example_of_a_remedy_loads_and_its_script_is_clean(tmp_path: Path) -> None:
    file = "lab/remedies/userns-limit-64.toml"
    folder = tmp_path / "remedies"
    shutil.copytree(PACKAGE / "remedies", folder)
    (folder / "userns-limit-64.toml").write_text(example("adding-a-remedy.md", file))
    loaded = remedies.load_remedies(folder)
    assert "userns-limit-64" in [remedy.name for remedy in remedies.choose_candidates(loaded, ["userns-limit"])]
    script = tmp_path / "script.sh"
    script.write_text(loaded["userns-limit-64"].script())
    done = subprocess.run([SHELLCHECK, "--shell=sh", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def undocumented(page: str, *models: type[BaseModel], but: str = "", form: str = "`{}") -> list[str]:
    """The keys of models that a guide does not name."""
    text = (ROOT / "docs" / "guides" / page).read_text()
    keys = {key for model in models for key in model.model_fields} - set(but.split())
    return [key for key in sorted(keys) if form.format(key) not in text]


def test_every_key_of_a_definition_is_documented() -> None:
    guests = (catalog.DebianImage, catalog.CloudImage, catalog.SignedChecksums, Guest, Set)
    assert undocumented("adding-a-guest.md", *guests, but="name kind image checksums unsigned") == []
    changes = (remedies.Remedy, remedies.HostChange, remedies.RunChange)
    assert undocumented("adding-a-remedy.md", *changes, but="name title host run") == []
    assert undocumented("several-hosts.md", HostEntry, form="{}`") == []
    assert undocumented("several-hosts.md", ListenAddress, form="coordinator.{}`") == []


def test_every_status_and_outcome_is_documented() -> None:
    there = cells_of_tables("reference/statuses.md")
    told = (ROOT / "docs" / "reference" / "statuses.md").read_text()
    assert {*Status, *Outcome, *RemedyOutcome, *WordsVerdict} <= there
    words = [*TrialOutcome, *ClaimOutcome, *Reproduction, *Confidence]
    assert [word for word in words if f"`{word}`" not in told] == []


def test_how_each_cause_is_proved_is_documented() -> None:
    _, _, proofs = (ROOT / "docs" / "reference" / "causes.md").read_text().partition("## How each is proved")
    assert re.findall(r"^\| `([a-z-]+)` ", proofs, re.MULTILINE) == list(causes.list_causes())


def test_the_examples_of_a_baseline_and_of_known_failures_load(tmp_path: Path) -> None:
    (tmp_path / "baseline.toml").write_text(example("files.md", "baseline.toml", "reference"))
    read = baseline.read(tmp_path / "baseline.toml")
    assert [cell.variant for cell in read.cells.values()] == ["max-userns-zero", "stock"]
    (tmp_path / "known.toml").write_text(example("comparing-builds.md", "known.toml"))
    [expected] = expectations.read_expectations(tmp_path / "known.toml").expect.values()
    assert expected.matches("ubuntu-24.04", "stock")


def test_the_example_of_an_inventory_loads(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text(example("several-hosts.md", "hosts.toml"))
    assert list(inventory.load_inventory(tmp_path / "hosts.toml").hosts) == ["lab-1", "lab-2"]
