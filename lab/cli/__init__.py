"""The command line: parse, call, print. One module for each family of commands; `main` runs them."""

import errno
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType

import click

from lab.base import files, notices
from lab.base.errors import Bug, LabError, NotApplicable, UsageError
from lab.base.files import clean_text, cut_text, escape_commands
from lab.base.first_process import leave_first_process
from lab.base.paths import ANOTHER_HOME, STATES_GIB, Paths
from lab.cli.version import print_version

# The exit status that shells give a program ended by SIGINT.
INTERRUPTED = 130
# The same for SIGPIPE: that of `cat` whose reader has gone.
BROKEN_PIPE = 128 + signal.SIGPIPE
# What the system says of a file that may not be read or written.
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# The modules of the libraries that the extra `run` brings, with what these bring.
RUN_LIBRARIES = ("libvirt", "libvirt_qemu", "paramiko", "fabric", "invoke", "pycdlib")
# Longest message of an error, in characters.
LONGEST = 20_000
# The variable by which a shell's script asks `lab` for names; click knows it by the program's name.
COMPLETE = "_LAB_COMPLETE"
# The commands of each module of `lab.cli`, where NAME is `NAME_command`.
MODULES = {
    "check": "check probe",
    "gate": "baseline compare expect gate",
    "guests": "attach copy exec shell",
    "host": "clean doctor",
    "images": "images",
    "lists": "completion help list remedies",
    "matrix": "matrix",
    "reports": "merge publish report runs",
    "repro": "repro",
}
COMMANDS = {name: module for module, names in MODULES.items() for name in names.split()}
# The commands whose only product is what they print, and the options that make others such commands. The exit
# status of all others says what they did or decided, whether anybody reads what they print or not.
PRINTING = re.compile("compare|completion|help|images list|list|probe|remedies( show)?|report|runs")
PRINTING_OPTIONS = {"-h", "--help", "--list", "--dry-run", "--text-only"}
OUTPUT_HINT = "run it again with a standard output that is open and has space; lab report shows a run again"
# A host of a run on several hosts starts this one; nobody else needs to know it.
INTERNAL = {"part": "matrix"}


class Commands(click.Group):
    """The commands of `COMMANDS`. Each is imported when it is called or its own help is shown: that takes long.

    What `completion` knows of them stands for them while a shell completes a word, and in the list of commands.
    """

    # Whether the command line only prints; so do `lab --help` and `lab --version`.
    only_prints = True

    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if context.resilient_parsing:
            return self._stand_ins().get_command(context, name)
        if (module := COMMANDS.get(name) or INTERNAL.get(name)) and name not in self.commands:
            try:
                loaded = import_module(f"lab.cli.{module}")
            except ModuleNotFoundError as error:
                if error.name not in RUN_LIBRARIES:
                    raise
                raise LabError(
                    f"lab {name} runs machines, and {error.name} is not installed",
                    hint="pip install 'boxlite-lab[run]', or ./setup.sh in a checkout",
                ) from error
            self.add_command(getattr(loaded, f"{name}_command"), name)
        return super().get_command(context, name)

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, arguments = super().resolve_command(context, words)
        lab_arguments = arguments[: arguments.index("--")] if "--" in arguments else arguments
        below = command.commands if isinstance(command, click.Group) else ()
        path = " ".join([str(name), *(word for word in lab_arguments if word in below)])
        self.only_prints = bool(PRINTING.fullmatch(path)) or not PRINTING_OPTIONS.isdisjoint(lab_arguments)
        return name, command, arguments

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        self._stand_ins().format_commands(context, formatter)

    @staticmethod
    def _stand_ins() -> click.Group:
        from lab.cli import completion  # `lab --version` needs none.

        return completion.make_stand_ins()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--connect",
    metavar="URI",
    help="Use this libvirt daemon. Default: $LAB_CONNECT, or qemu:///system as root, else qemu:///session.",
)
@click.option(
    "--states-gib",
    type=click.IntRange(0),
    metavar="GIB",
    envvar="LAB_STATES_GIB",
    default=STATES_GIB,
    show_default=True,
    help="Let stored states (guests that later lanes start from) take at most this much disk space. The one "
    "whose last use is the oldest is removed first; 0 stores none. $LAB_STATES_GIB sets it, too.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version, and the commit of a checkout, and exit.",
)
@click.pass_context
def cli(context: click.Context, connect: str | None, states_gib: int) -> None:
    """Find out which hosts can run boxlite's jailer, why others cannot, and what cures them.

    The lab boots virtual machines, runs the jailer's tests in them and explains what failed. Start with
    `lab doctor`, then run `lab matrix --set quick`.
    """
    from lab.cli.options import Lab

    try:
        Path.cwd()
    except OSError as error:
        message = f"the folder in which this command was started cannot be used: {error.strerror}"
        raise UsageError(message, hint="cd to a folder that exists, and run the same command again") from error
    context.obj = Lab(connect, states_gib)


def main() -> None:
    """Run the command line. An expected failure prints a message; a bug shows its traceback and exits 4."""
    from lab.cli.output import open_streams

    leave_first_process()
    stdout = open_streams()
    notices.quiet_libraries()
    notices.listener = _tell
    # Whatever the umask is: what others may write, a later command must not trust.
    os.umask(os.umask(0o077) | 0o022)
    # SIGTERM ends a run as Ctrl-C does: all machines are taken down.
    _handle_signals(_end)
    try:
        _check_arguments()
        status = cli.main(standalone_mode=False, complete_var=COMPLETE)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _tell("interrupted; nothing was left running")
        sys.exit(INTERRUPTED)
    except NotApplicable as reason:
        _tell(f"lab: n/a: {_safe(reason)}")
        sys.exit(UsageError.exit_status)
    except Exception as error:
        if isinstance(error, OSError):
            error = _explain(error)
        if isinstance(error, LabError):
            _tell(f"lab: {_safe(error)}")
            sys.exit(error.exit_status)
        _show_trace("".join(traceback.format_exception(error)))
        sys.exit(Bug.exit_status)
    if stdout.problem is not None:
        status = _lose_output(stdout.problem, status)
    for trace in notices.bugs:
        _show_trace(trace)
    sys.exit(Bug.exit_status if notices.bugs else status if isinstance(status, int) else 0)


def _lose_output(problem: OSError, status: object) -> object:
    """Return the exit status of a command whose output could not all be written, and say so.

    The reader of a pipe that closes it has read what it wanted, as `head` does, so that is not said.
    """
    if not isinstance(problem, BrokenPipeError):
        warning = "" if cli.only_prints else "warning: "
        _tell(f"lab: {warning}standard output could not be written: {problem.strerror}\n  next: {OUTPUT_HINT}")
    if not cli.only_prints:
        return status
    return BROKEN_PIPE if isinstance(problem, BrokenPipeError) else LabError.exit_status


def _check_arguments() -> None:
    """Refuse what no record and no report could hold. Raises UsageError."""
    for argument in map(os.fsencode, sys.argv[1:]):
        try:
            argument.decode()
        except UnicodeDecodeError as error:
            message = f"an argument is not UTF-8: {argument!r}"
            raise UsageError(message, hint="rename the file, or copy it to a name that is") from error


def _explain(error: OSError) -> Exception:
    """Return the error to show: a full disk, and folders of the lab that may not be written, are expected."""
    if files.is_full(error):
        return _disk_full(error)
    if error.errno in FORBIDDEN and isinstance(error.filename, str):
        paths, file = Paths.default(), Path(error.filename)
        if file.is_relative_to(paths.cache) or file.is_relative_to(paths.state):
            return UsageError(f"{error.strerror}: {file}", hint=ANOTHER_HOME)
    return error


def _disk_full(error: OSError) -> LabError:
    """The error of a disk that was found full where nobody expected it; it may not name the file."""
    if error.filename:
        return files.make_disk_full_error(error, Path(), files.A_RUN)
    paths = Paths.default()
    folders = dict.fromkeys([paths.cache, paths.state, Path(tempfile.gettempdir()), Path.cwd()])
    free = "; ".join(dict.fromkeys(map(files.format_free_space, folders)))
    return files.DiskFull(f"{error.strerror}: {free}; {files.A_RUN}", hint=files.HINT)


def _show_trace(trace: str) -> None:
    """Show the traceback of a bug; its end matters most."""
    end = "lab: this is a bug in the lab and says nothing about boxlite\n  next: report it with the text above"
    _tell(f"{escape_commands(clean_text(trace[-LONGEST:]))}{end}")


def _tell(text: str) -> None:
    """Print a line to standard error. Rich is imported here: `lab --version` does not need it."""
    from lab.cli.output import print_warning

    print_warning(text)


def _safe(error: Exception) -> str:
    """Return an error's message for a terminal and for the log of a CI job: it may hold text from a guest."""
    return escape_commands(clean_text(cut_text(str(error), LONGEST)))


def _handle_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Let a handler get the signals that end the lab."""
    signal.signal(signal.SIGTERM, handler)
    # nohup, and a script that puts the lab into the background, have it ignored: Ctrl-C is meant for others.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    """Interrupt the run; a second signal stops the process at once."""
    _handle_signals(_end_at_once)
    raise KeyboardInterrupt


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    # Machines end with this process (autodestroy); the next command removes their folders.
    with suppress(OSError):
        os.write(2, b"\nstopped at once; lab clean, or the next run, removes what is left\n")
    os._exit(INTERRUPTED)
