"""How long a run took, and how busy it kept the processors of its host."""

from datetime import timedelta

from lab.record import ProcessorTime, RunResult


def lines(run: RunResult) -> list[str]:
    """A sentence for each session of a run that was measured, the newest last."""
    sessions = run.run.processor_time
    numbered = len(sessions) > 1
    return [
        f"{f'session {number}' if numbered else 'the run'} took {_sentence(each)}"
        for number, each in enumerate(sessions, 1)
    ]


def short(run: RunResult) -> list[str]:
    """The last session. Empty if nothing was measured."""
    return lines(run)[-1:]


def _sentence(spent: ProcessorTime) -> str:
    took = f"{_time(spent.wall)}; it kept {_processors(spent)} busy for {_time(spent.busy)} of"
    whole = f"{spent.processors} x {_time(spent.wall)}" if spent.processors > 1 else _time(spent.wall)
    shares = [_percent(each, spent.capacity) for each in (spent.lab, spent.others, spent.idle)]
    return f"{took} {whole} (the lab itself {shares[0]}); other programs {shares[1]}, idle {shares[2]}"


def _processors(spent: ProcessorTime) -> str:
    return f"{spent.processors} processors" if spent.processors > 1 else "the processor"


def _percent(seconds: float, capacity: float) -> str:
    return f"{100 * seconds / capacity:.0f} %" if capacity else "0 %"


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
