"""Run the stages that are not done, one after the other, as processes of their own."""
import os
import os.path as osp
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from ..compare.progress import last_progress, last_said, tail
from .planning import Plan, duration
from .stages import DONE, REPLACE, RESUME, Stage, Training

REPORT_SECONDS = 15.0
STOP_SECONDS = 60.0  # a step, a checkpoint and the end of the workers


def launch(words: Sequence[str], log: str, report: Callable[[], None]) -> int:
    """Run ``kd-det`` with ``words`` in a process, its output in the file ``log``; the exit status.

    ``report`` is called now and then. Ctrl-C and SIGTERM are passed on, so that the run ends in good order, with a
    checkpoint; KeyboardInterrupt is raised then.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    with open(log, 'a', encoding='utf-8') as output:
        process = subprocess.Popen([sys.executable, '-m', 'kd_det', *words], stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True)
    reported = time.monotonic()
    try:
        while process.poll() is None:
            if time.monotonic() - reported > REPORT_SECONDS:
                report()
                reported = time.monotonic()
            time.sleep(0.2)
    except BaseException:
        process.terminate()  # a shell's background jobs, and what they start, are deaf to SIGINT
        try:
            process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return process.returncode


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def run(plan: Plan, say: Callable[[str], None] = print) -> bool:
    """Run what is missing.

    Args:
        plan: written already.
        say: told what happens.

    Returns:
        bool: whether every stage is done. The first that fails ends it; its log's end is said.

    Raises:
        ConfigError: a stage's place holds something else, and ``--overwrite`` is not given.
    """
    logs = plan.places('logs')
    os.makedirs(logs, exist_ok=True)
    overwrite = plan.request.overwrite
    states = [stage.state(overwrite) for stage in plan.stages]  # what stands in the way is said before the first begins
    for i, stage in enumerate(plan.stages):
        state = stage.state(overwrite)
        title = f'[{i + 1}/{len(plan.stages)}] {stage.name}'
        if state == DONE:
            say(f'{title}: done before')
            continue
        log = osp.join(logs, f'{stage.name}.log')
        why = f' ({stage.why})' if state == REPLACE else ''
        say(f'{title} {state}{why}: {stage.what}; {log}')
        rest = [one for one, before in zip(plan.stages[i + 1:], states[i + 1:]) if before != DONE]
        if isinstance(stage, Training):
            stage.resumed = state == RESUME
        begin, since = time.monotonic(), osp.getsize(log) if osp.isfile(log) else 0
        status = launch(stage.arguments(state), log, lambda now=(log, since, stage, rest, begin), title=title:
                       say(f'{title}: {_progress(*now)}'))
        if status != 0 or stage.state(overwrite) != DONE:
            say(f'{title}: FAILED with status {status}; the end of {log}:\n{tail(log)}\nGive the same command again '
                'when it is mended: what is done is kept, and this stage goes on from its last checkpoint')
            return False
        say(f'{title}: done in {duration(time.monotonic() - begin)}')
    return True


def _progress(log: str, since: int, stage: Stage, rest: Sequence[Stage], begin: float) -> str:
    text = last_progress(log, since) if isinstance(stage, Training) else last_said(log, since)[:100]
    if stage.seconds is not None:
        text += f'; all stages: about {duration(seconds_left(stage, text, time.monotonic() - begin, rest))} left'
    return text


def seconds_left(stage: Stage, text: str, elapsed: float, rest: Sequence[Stage]) -> float:
    """Of a stage that has run for ``elapsed`` seconds, and of those after it.

    What was estimated counts until a twentieth of a training is done; from then on the pace that is seen, of the stages
    after it too: a machine that others use is slower than the few steps that were measured on it.

    Args:
        text: the stage's progress, as :func:`kd_det.compare.progress.last_progress` says it.
    """
    after = sum(one.seconds or 0.0 for one in rest)
    part = share_done(text, stage.epochs) if isinstance(stage, Training) and not stage.resumed else 0.0
    if part < 0.05:
        return max(stage.seconds - elapsed, 0) + after
    whole = elapsed / part
    return whole - elapsed + after * whole / max(stage.seconds, 1e-9)


def share_done(text: str, epochs: int) -> float:
    """How much of a training is done, by its progress: 'train [2][30/110] eta ...' is (1 + 30 / 110) / epochs."""
    found = re.match(r'(train|val) \[(\d+)\]\[(\d+)/(\d+)\]', text)
    if not found:
        return 0.0
    epoch, step, steps = map(int, found.groups()[1:])
    return min((epoch if found[1] == 'val' else epoch - 1 + step / steps) / epochs, 1.0)
