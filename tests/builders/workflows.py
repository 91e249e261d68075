"""Runs a workflow's jobs as GitHub does, as far as the lab's examples need it: what they do not use is refused.

The jobs run one after another on one machine, whose folders are emptied before each, as every hosted runner has
the same ones. Programs of steps are run. Actions of others have stand-ins, which do what the pinned releases do
with these inputs.
"""

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

# What an expression is made of, and what the lab's examples use of it.
TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<name>[A-Za-z_][\w.-]*)|(?P<sign>==|!=|&&|\|\||[!()]))")
CONTEXTS = {"github", "inputs", "matrix", "needs", "steps", "strategy"}
STATUS_FUNCTIONS = {"always", "cancelled"}
WORKFLOW_KEYS = {"name", "on", "permissions", "concurrency", "jobs"}
JOB_KEYS = {"name", "needs", "if", "runs-on", "timeout-minutes", "continue-on-error", "strategy", "permissions"}
JOB_KEYS |= {"steps", "outputs", "environment", "uses"}
STEP_KEYS = {"name", "id", "if", "uses", "with", "run", "env", "shell"}
SHELLS = {"bash": ["bash", "-e"], "sh": ["sh", "-e"]}

Value = str | bool
Contexts = Mapping[str, Any]


class NotSupported(Exception):
    """A workflow has something that the lab's examples do not use, so it is not known here what GitHub does."""


def refuse_unknown(kind: str, table: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(table) - known):
        raise NotSupported(f"{kind}: {', '.join(unknown)}")


# -- expressions


class Expression:
    """An expression as GitHub evaluates it; a value that is not there is an empty text."""

    def __init__(self, text: str, contexts: Contexts, *, succeeded: bool, is_cancelled: bool = False) -> None:
        self._text, self._contexts = text, contexts
        self._functions = {"always": True, "cancelled": is_cancelled, "success": succeeded}
        self._tokens = self._split(text)
        self.asks_for_status = any(word in STATUS_FUNCTIONS for _, word in self._tokens)

    def _split(self, text: str) -> list[tuple[str, str]]:
        tokens, end = [], 0
        while text[end:].strip():
            match = TOKEN.match(text, end)
            if not match or not match.lastgroup:
                raise NotSupported(f"in the expression {text!r}: {text[end:]!r}")
            tokens.append((match.lastgroup, match[match.lastgroup]))
            end = match.end()
        return tokens

    def evaluate(self) -> Value:
        value = self._either()
        if self._tokens:
            raise NotSupported(f"in the expression {self._text!r}: {self._tokens[0][1]!r}")
        return value

    def _take(self, *signs: str) -> str:
        if self._tokens and self._tokens[0] in [("sign", sign) for sign in signs]:
            return self._tokens.pop(0)[1]
        return ""

    def _either(self) -> Value:
        value = self._both()
        while self._take("||"):
            other = self._both()
            value = value or other
        return value

    def _both(self) -> Value:
        value = self._equal()
        while self._take("&&"):
            other = self._equal()
            value = value and other
        return value

    def _equal(self) -> Value:
        value = self._operand()
        while sign := self._take("==", "!="):
            other = self._operand()
            if not (isinstance(value, str) and isinstance(other, str)):
                raise NotSupported(f"in the expression {self._text!r}: only texts are compared")
            # GitHub ignores case.
            value = (value.lower() == other.lower()) is (sign == "==")
        return value

    def _operand(self) -> Value:
        if self._take("!"):
            return not self._operand()
        if self._take("("):
            value = self._either()
            self._expect(")")
            return value
        kind, word = self._tokens.pop(0) if self._tokens else ("", "its end")
        if kind == "text":
            return word[1:-1].replace("''", "'")
        if kind == "name" and word in STATUS_FUNCTIONS:
            self._expect("(")
            self._expect(")")
            return self._functions[word]
        if kind == "name" and word.split(".")[0] in CONTEXTS and "." in word:
            return self._look_up(word)
        raise NotSupported(f"in the expression {self._text!r}: {word!r}")

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise NotSupported(f"in the expression {self._text!r}: expected {sign!r}")

    def _look_up(self, name: str) -> str:
        value: Any = self._contexts
        for part in name.split("."):
            value = value.get(part, "") if isinstance(value, Mapping) else ""
        if isinstance(value, Mapping):
            raise NotSupported(f"{name} is no text")
        return str(value)


def decide(condition: str, contexts: Contexts, *, succeeded: bool, is_cancelled: bool = False) -> bool:
    """Whether a job or a step runs: only after success, unless its condition asks for the status itself."""
    text = condition.strip()
    if text.startswith("${{") and text.endswith("}}"):
        text = text[3:-2]
    if not text:
        return succeeded
    expression = Expression(text, contexts, succeeded=succeeded, is_cancelled=is_cancelled)
    asks = expression.asks_for_status
    return bool(expression.evaluate()) and (asks or succeeded)


def fill_in(value: Any, contexts: Contexts) -> str:
    """A text with its expressions evaluated."""

    def evaluate(match: re.Match[str]) -> str:
        result = Expression(match[1], contexts, succeeded=True).evaluate()
        return str(result).lower() if isinstance(result, bool) else result

    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"\$\{\{(.*?)\}\}", evaluate, text)


# -- a repository, its runs and a runner


def render_build_workflow(artifact: str) -> str:
    """The workflow that builds wheels, as far as the guide says how it calls the lab's; `artifact` has them."""
    return f"""\
name: Build wheels
on: {{release: {{types: [published]}}}}
permissions: {{contents: read}}
jobs:
  build_wheels:
    runs-on: ubuntu-24.04
    steps:
      - run: make setup dist:python
      - uses: actions/upload-artifact@v7
        with: {{name: {artifact}, path: wheelhouse/*.whl}}
  compatibility:
    needs: build_wheels
    uses: ./.github/workflows/before-a-release.yml
  publish:
    needs: [build_wheels, compatibility]
    runs-on: ubuntu-24.04
    steps:
      - run: echo published
"""


def read_yaml(file: Path) -> dict[str, Any]:
    table: dict[str, Any] = YAML(typ="safe").load(file.read_text())
    return table


def sort_jobs(jobs: Mapping[str, Any]) -> list[str]:
    """The names of jobs, each after those that it needs."""
    order: list[str] = []
    while left := [name for name in jobs if name not in order]:
        ready = [name for name in left if set(list_needs(jobs[name])) <= set(order)]
        if not ready:
            raise NotSupported(f"jobs that need each other, or none that is there: {', '.join(left)}")
        order += ready
    return order


def list_needs(job: Mapping[str, Any]) -> list[str]:
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else list(needs)


@dataclass
class StepRun:
    """What became of a step."""

    job: str
    name: str
    result: str
    output: str = ""


@dataclass
class Hub:
    """What GitHub holds for one repository: its files, caches and Pages; and the runner's folders.

    `lab` is the folder of the lab's repository, `programs` one with stand-ins for programs of the runner.
    `loses`: whether the machine of a job is lost before its first step, by the job's name.
    """

    repository: Path
    lab: Path
    machine: Path
    programs: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    event: Mapping[str, Any] = field(default_factory=dict)
    loses: Callable[[str], bool] = lambda _name: False
    caches: dict[str, Path] = field(default_factory=dict)
    pages: Path | None = None

    def run(self, workflow: str) -> "WorkflowRun":
        """Run a workflow by its file's name, each job after those that it needs."""
        run = WorkflowRun(self)
        run.run_jobs(read_yaml(self.repository / ".github" / "workflows" / workflow))
        return run

    def keep(self, source: Path, name: str) -> Path:
        """Copy a folder to where no job reaches it."""
        target = self.machine.with_name(f"kept-{len(list(self.machine.parent.glob('kept-*')))}-{name}"[:200])
        shutil.copytree(source, target)
        return target


class WorkflowRun:
    """One run of a workflow: its jobs' results and outputs, its artifacts, and what each step did."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.results: dict[str, str] = {}
        self.steps: list[StepRun] = []
        self.artifacts: dict[str, Path] = {}
        self.summaries = ""
        self._outputs: dict[str, dict[str, str]] = {}

    def run_jobs(self, workflow: Mapping[str, Any], prefix: str = "") -> bool:
        """Run the jobs of a workflow; whether it has succeeded."""
        refuse_unknown("a workflow", workflow, WORKFLOW_KEYS)
        jobs = workflow["jobs"]
        succeeded = True
        for name in sort_jobs(jobs):
            job = jobs[name]
            refuse_unknown(f"the job {name}", job, JOB_KEYS)
            needs = {
                need: {"result": self.results[prefix + need], "outputs": self._outputs.get(prefix + need, {})}
                for need in list_needs(job)
            }
            contexts = {"github": self._github(), "needs": needs}
            ready = all(need["result"] == "success" for need in needs.values())
            result = "skipped"
            if decide(str(job.get("if", "")), contexts, succeeded=ready):
                result = self._run_job(prefix + name, job, contexts)
            if result == "failure":
                # The job's own result is that of a job that has succeeded, if the run may go on in spite of it.
                result = "success" if job.get("continue-on-error") else result
            succeeded &= result != "failure"
            self.results[prefix + name] = result
        return succeeded

    def _github(self) -> dict[str, Any]:
        values = {"token": "a-token", "repository": "upstream/boxlite", "ref": "refs/pull/7/merge"}
        return {**values, "event": self.hub.event}

    def _run_job(self, name: str, job: Mapping[str, Any], contexts: Contexts) -> str:
        if called := job.get("uses"):
            workflow = read_yaml(self.hub.repository / called)
            return "success" if self.run_jobs(workflow, f"{name}/") else "failure"
        strategy = job.get("strategy", {})
        refuse_unknown("a strategy", strategy, {"matrix", "fail-fast"})
        matrix = strategy.get("matrix", {})
        choices = [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())]
        results = []
        for number, choice in enumerate(choices):
            more = {"matrix": choice, "strategy": {"job-index": number}}
            runner = JobRun(self, f"{name}-{number}" if matrix else name, {**contexts, **more})
            results.append(runner.run(job))
            self._outputs[name] = runner.outputs
        return "failure" if "failure" in results else "success"

    def find_steps(self, job: str) -> dict[str, str]:
        """What became of the steps of a job, by their names."""
        return {step.name: step.result for step in self.steps if step.job == job}

    def show(self) -> str:
        """All that the steps printed, for a test that fails."""
        return "\n".join(f"== {step.job}: {step.name}: {step.result}\n{step.output}" for step in self.steps)


class JobRun:
    """One job on an empty machine, or the steps of a composite action in it."""

    def __init__(self, run: WorkflowRun, name: str, contexts: Contexts, action: Path | None = None) -> None:
        self.run_of_workflow, self.hub, self.name = run, run.hub, name
        self.outputs: dict[str, str] = {}
        self.succeeded = True
        self._action, self._contexts = action, contexts
        self._steps: dict[str, Any] = {}
        machine = self.hub.machine
        self.home, self.work, self.temporary = machine / "home", machine / "work", machine / "temporary"

    @property
    def contexts(self) -> dict[str, Any]:
        return {**self._contexts, "steps": self._steps}

    def run(self, job: Mapping[str, Any]) -> str:
        shutil.rmtree(self.hub.machine, ignore_errors=True)
        for folder in (self.home, self.work, self.temporary):
            folder.mkdir(parents=True)
        if self.hub.loses(self.name):
            self.run_of_workflow.steps.append(StepRun(self.name, "the machine", "lost"))
            return "failure"
        self.run_steps(job["steps"])
        self.outputs = {key: fill_in(text, self.contexts) for key, text in job.get("outputs", {}).items()}
        return "success" if self.succeeded else "failure"

    def run_steps(self, steps: list[Mapping[str, Any]]) -> None:
        for step in steps:
            refuse_unknown(f"a step of {self.name}", step, STEP_KEYS)
            name = str(step.get("name") or step.get("id") or step.get("uses") or step["run"].splitlines()[0])
            if not decide(str(step.get("if", "")), self.contexts, succeeded=self.succeeded):
                self.run_of_workflow.steps.append(StepRun(self.name, name, "skipped"))
                continue
            outputs: dict[str, str] = {}
            try:
                output = self._run_program(step, outputs) if "run" in step else self._use(step, outputs)
                result = "success"
            except subprocess.CalledProcessError as error:
                output, result, self.succeeded = str(error.output), "failure", False
            if "id" in step:
                self._steps[step["id"]] = {"outputs": outputs, "outcome": result}
            self.run_of_workflow.steps.append(StepRun(self.name, name, result, output))

    def _environment(self, step: Mapping[str, Any]) -> dict[str, str]:
        github = self.contexts["github"]
        return {
            "PATH": f"{self.hub.programs}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": github["repository"],
            "GITHUB_WORKSPACE": str(self.work),
            "RUNNER_TEMP": str(self.temporary),
            **({"GITHUB_ACTION_PATH": str(self._action)} if self._action else {}),
            **self.hub.variables,
            **{key: fill_in(value, self.contexts) for key, value in step.get("env", {}).items()},
        }

    def _run_program(self, step: Mapping[str, Any], outputs: dict[str, str]) -> str:
        """Run the program of a step. Raises CalledProcessError with what it printed."""
        if self._action and "shell" not in step:
            raise NotSupported("a program of an action without its shell")
        files = {
            key: self.temporary / key.lower() for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV")
        }
        for file in files.values():
            file.write_text("")
        program = self.temporary / "step.sh"
        program.write_text(fill_in(step["run"], self.contexts))
        environment = {**self._environment(step), **{key: str(file) for key, file in files.items()}}
        done = subprocess.run(
            [*SHELLS[step.get("shell", "bash")], str(program)],
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        outputs |= dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        self.run_of_workflow.summaries += files["GITHUB_STEP_SUMMARY"].read_text()
        if files["GITHUB_ENV"].read_text():
            raise NotSupported("variables for later steps")
        if done.returncode:
            raise subprocess.CalledProcessError(
                done.returncode, step["run"], f"{done.stdout}ends with {done.returncode}"
            )
        return done.stdout

    # -- actions

    def _use(self, step: Mapping[str, Any], outputs: dict[str, str]) -> str:
        name = step["uses"].partition("@")[0]
        given = {key: fill_in(value, self.contexts) for key, value in step.get("with", {}).items()}
        if name == "OWNER/boxlite-lab":
            return self._run_composite(self.hub.keep(self.hub.lab, "action"), given, outputs)
        if name.startswith("./"):
            return self._run_composite(self.work / name, given, outputs)
        stand_in = {
            "actions/checkout": self._check_out,
            "actions/upload-artifact": self._upload,
            "actions/download-artifact": self._download,
            "actions/cache/restore": self._restore_cache,
            "actions/cache/save": self._save_cache,
            "actions/upload-pages-artifact": self._upload_pages,
            "actions/deploy-pages": self._deploy_pages,
        }.get(name)
        if stand_in is None:
            raise NotSupported(f"the action {name}")
        return stand_in(given, outputs)

    def _run_composite(self, folder: Path, given: Mapping[str, str], outputs: dict[str, str]) -> str:
        action = read_yaml(folder / "action.yml")
        refuse_unknown("inputs of the lab's action", given, set(action["inputs"]))
        inputs = {key: given.get(key, about["default"]) for key, about in action["inputs"].items()}
        inner = JobRun(
            self.run_of_workflow, self.name, {"inputs": inputs, "github": self.contexts["github"]}, folder
        )
        inner.run_steps(action["runs"]["steps"])
        outputs |= {key: fill_in(about["value"], inner.contexts) for key, about in action["outputs"].items()}
        self.succeeded &= inner.succeeded
        if not inner.succeeded:
            raise subprocess.CalledProcessError(1, "the lab's action", "")
        return ""

    def _fail(self, text: str) -> None:
        raise subprocess.CalledProcessError(1, "an action", text)

    def _check_out(self, given: Mapping[str, str], _outputs: dict[str, str]) -> str:
        refuse_unknown("checkout", given, {"repository", "ref", "path", "persist-credentials", "submodules"})
        source = self.hub.lab if given.get("repository") == "OWNER/boxlite-lab" else self.hub.repository
        if given.get("repository") and source != self.hub.lab:
            raise NotSupported(f"the repository {given['repository']}")
        shutil.copytree(source, self.work / given.get("path", "."), dirs_exist_ok=True, symlinks=True)
        return ""

    def _upload(self, given: Mapping[str, str], _outputs: dict[str, str]) -> str:
        refuse_unknown("upload-artifact", given, {"name", "path", "overwrite", "if-no-files-found"})
        path = self.work / given["path"]
        found = sorted(path.parent.glob(path.name))
        if not found:
            if given.get("if-no-files-found") == "error":
                self._fail(f"no files are in {path}")
            return f"warning: no files are in {path}"
        if given["name"] in self.run_of_workflow.artifacts and given.get("overwrite") != "true":
            self._fail(f"the artifact {given['name']} is there already")
        packed = self.temporary / "artifact"
        shutil.rmtree(packed, ignore_errors=True)
        packed.mkdir()
        for source in found:
            if source.is_dir():
                # Hidden files and empty folders stay behind.
                hidden = shutil.ignore_patterns(".*")
                shutil.copytree(source, packed, dirs_exist_ok=True, ignore=hidden)
            else:
                shutil.copy(source, packed)
        self.run_of_workflow.artifacts[given["name"]] = self.hub.keep(packed, given["name"])
        return ""

    def _download(self, given: Mapping[str, str], _outputs: dict[str, str]) -> str:
        refuse_unknown("download-artifact", given, {"name", "path", "pattern", "merge-multiple"})
        artifacts = self.run_of_workflow.artifacts
        target = self.work / given.get("path", ".")
        if "name" in given:
            if given["name"] not in artifacts:
                self._fail(f"Artifact not found for name: {given['name']}")
            names = [given["name"]]
        else:
            names = [name for name in artifacts if fnmatchcase(name, given["pattern"])]
        for name in names:
            # One artifact alone gets no folder of its own.
            is_flat = len(names) == 1 or given.get("merge-multiple") == "true"
            shutil.copytree(artifacts[name], target if is_flat else target / name, dirs_exist_ok=True)
        return f"{len(names)} artifacts"

    def _cached(self, given: Mapping[str, str]) -> list[Path]:
        paths = given["path"].split()
        if unknown := [path for path in paths if not path.startswith("~/")]:
            raise NotSupported(f"a cache of {unknown[0]}")
        return [self.home / path[2:] for path in paths]

    def _restore_cache(self, given: Mapping[str, str], outputs: dict[str, str]) -> str:
        refuse_unknown("cache/restore", given, {"path", "key", "restore-keys"})
        keys = list(self.hub.caches)
        prefixes = given.get("restore-keys", "").split()
        matches = [key for key in keys if key == given["key"]]
        # The newest first.
        matches += [key for prefix in prefixes for key in reversed(keys) if key.startswith(prefix)]
        if not matches:
            return "Cache not found"
        for number, path in enumerate(self._cached(given)):
            if (stored := self.hub.caches[matches[0]] / str(number)).exists():
                shutil.copytree(stored, path, dirs_exist_ok=True)
        outputs |= {"cache-matched-key": matches[0], "cache-hit": str(matches[0] == given["key"]).lower()}
        return f"restored from {matches[0]}"

    def _save_cache(self, given: Mapping[str, str], _outputs: dict[str, str]) -> str:
        refuse_unknown("cache/save", given, {"path", "key"})
        if given["key"] in self.hub.caches:
            return "warning: another job may have saved this key"
        packed = self.temporary / "cache"
        shutil.rmtree(packed, ignore_errors=True)
        packed.mkdir()
        for number, path in enumerate(self._cached(given)):
            if path.exists():
                shutil.copytree(path, packed / str(number))
        self.hub.caches[given["key"]] = self.hub.keep(packed, "cache")
        return f"saved {given['key']}"

    def _upload_pages(self, given: Mapping[str, str], outputs: dict[str, str]) -> str:
        refuse_unknown("upload-pages-artifact", given, {"path"})
        return self._upload({"name": "github-pages", "path": given["path"]}, outputs)

    def _deploy_pages(self, given: Mapping[str, str], outputs: dict[str, str]) -> str:
        refuse_unknown("deploy-pages", given, set())
        if "github-pages" not in self.run_of_workflow.artifacts:
            self._fail("there is no artifact github-pages")
        self.hub.pages = self.run_of_workflow.artifacts["github-pages"]
        outputs["page_url"] = "https://upstream.example/boxlite/"
        return ""
