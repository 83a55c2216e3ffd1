"""Run the trainings of a study side by side, and record each one when it ends."""
import fcntl
import os
import os.path as osp
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..compare.progress import last_progress, tail
from ..errors import StudyError
from .definition import Study
from .evaluating import Evaluated, keep_detections, read_evaluation
from .finished import Finished, checkpoint_of, read_finished, run_config
from .identity import config_hash, differing_keys
from .planning import Settings, Task, train_arguments
from .recording import make_record, with_detections, write_record
from .records import mean_seconds, read_record, record_path, row_records
from .teachers import teacher_records

_STOP_SECONDS = 60.0  # a step, a checkpoint and the exit of the data loader's workers
DETECTIONS = 'detections'
"""Folder of the evaluation in a run's work directory."""


@dataclass
class _Job:
    """A task whose training or, once ``finished`` is set, evaluation is running; ``lock`` is an open file."""
    task: Task
    lock: int
    start: float
    finished: Finished | None = None


class Scheduler:
    """Trains what is not recorded, at most ``settings.jobs`` at a time.

    Another runner may work on the same study: a run is locked while it trains, the other one takes the next.

    Args:
        after_each (Callable): called after each new record.
    """

    def __init__(self, study: Study, settings: Settings, tasks: list[Task],
                 after_each: Callable[[], None] = lambda: None) -> None:
        self.study, self.settings, self.after_each = study, settings, after_each
        if (differing := [task.name for task in tasks if task.state == 'differs']) and not settings.redo:
            raise StudyError('recorded with another config than the study\'s now: ' + ', '.join(differing)
                             + '. --redo trains them again; --rows leaves them out')
        self.pending = [task for task in tasks if task.state != 'recorded']
        self.total = len(self.pending)
        self.running: dict[subprocess.Popen, _Job] = {}
        self.failed: list[Task] = []

    def run(self) -> list[Task]:
        """Returns the tasks that failed; Ctrl-C stops the children and passes on."""
        reported = time.monotonic()
        try:
            while self.pending or self.running:
                self._start_ready()
                for process in [p for p in self.running if p.poll() is not None]:
                    self._finish(process)
                if self.running and time.monotonic() - reported > self.settings.report_seconds:
                    self._report()
                    reported = time.monotonic()
                time.sleep(self.settings.poll_seconds)
        finally:
            self._stop_all()
        return self.failed

    def _start_ready(self) -> None:
        for task in list(self.pending):
            if len(self.running) >= self.settings.jobs:
                return
            teachers = list(task.teachers.values())
            waits_for = [*self.pending, *(job.task for job in self.running.values())]
            failed = next((teacher for teacher in teachers if teacher in self.failed), None)
            if failed is not None:
                self._fail(task, f'its teacher ({failed.name}) failed')
            elif not any(teacher in waits_for for teacher in teachers):
                self._start(task)

    def _start(self, task: Task) -> None:
        run_dir = self.settings.run_dir(task.row, task.seed)
        os.makedirs(osp.dirname(run_dir), exist_ok=True)
        lock = os.open(f'{run_dir}.lock', os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another runner trains it; look again later
            os.close(lock)
            return
        self.pending.remove(task)
        try:
            arguments = self._prepare(task, run_dir)
        except (ValueError, OSError, RuntimeError) as error:
            os.close(lock)
            self._fail(task, str(error))
            return
        if arguments is None:
            os.close(lock)
            return
        if isinstance(arguments, Finished):
            self._evaluate(_Job(task, lock, time.monotonic()), arguments)
            return
        self._launch(_Job(task, lock, time.monotonic()), [sys.executable, *self.settings.trainer, *arguments])
        self._say(f'{task.name}: started{" again from its last checkpoint" if "--resume" in arguments else ""}')

    def _launch(self, job: '_Job', command: list[str]) -> None:
        with open(f'{self.settings.run_dir(job.task.row, job.task.seed)}.log', 'a', encoding='utf-8') as output:
            # its own session: the terminal's Ctrl-C reaches only this program, which then stops the run in good order.
            # The lock goes along, so that a run outliving this program is not started a second time.
            process = subprocess.Popen(command, cwd=self.settings.root, env=self.settings.environment(), stdout=output,
                                       stderr=subprocess.STDOUT, start_new_session=True, pass_fds=(job.lock,))
        self.running[process] = job

    def _evaluate(self, job: '_Job', finished: Finished) -> None:
        """Start the evaluation of a finished training; the record is written when it ends."""
        run_dir = self.settings.run_dir(job.task.row, job.task.seed)
        self._launch(replace(job, finished=finished),
                     self.settings.evaluate_command(run_dir, osp.join(run_dir, DETECTIONS)))

    def _prepare(self, task: Task, run_dir: str) -> list[str] | Finished | None:
        """The arguments of the training; the run if it is finished but not recorded; None if it is recorded."""
        record = read_record(record_path(self.settings.results, task.row, task.seed))
        if record and record['config_sha256'] == task.sha and task.state != 'retrain':
            self._say(f'{task.name}: recorded by another runner')
            return None
        there = run_config(run_dir)
        if there is not None and config_hash(there) != task.sha:
            if not self.settings.redo:
                raise StudyError(f'{run_dir} holds a run of another config (differs in '
                                 f'{", ".join(differing_keys(there, task.cfg)[:6])}); --redo replaces it')
            there = None
        resume = False
        if there is not None:
            if (finished := read_finished(run_dir)) is not None:
                return finished
            checkpoint = checkpoint_of(run_dir) if osp.isfile(osp.join(run_dir, 'last_checkpoint')) else None
            resume = checkpoint is not None
            if resume and checkpoint.endswith(f'epoch_{there.train_cfg.max_epochs}.pth'):
                self._say(f'{task.name}: trained, but stopped before its validation; starting over')
                resume = False
        if not resume:
            shutil.rmtree(run_dir, ignore_errors=True)
        return train_arguments(task, self.settings) + ['--resume'] * resume

    def _finish(self, process: subprocess.Popen) -> None:
        job = self.running.pop(process)
        task, run_dir = job.task, self.settings.run_dir(job.task.row, job.task.seed)
        goes_on = False
        try:
            if process.returncode != 0:
                raise StudyError(f'ended with {process.returncode}; the end of {run_dir}.log:\n'
                                 + tail(f'{run_dir}.log'))
            if job.finished is not None:
                self._record(task, job.finished, read_evaluation(osp.join(run_dir, DETECTIONS)))
                return
            finished = read_finished(run_dir)
            if finished is None:
                raise StudyError(f'ended without a validation after its last epoch; see {run_dir}.log')
            if config_hash(finished.cfg) != task.sha:
                raise StudyError('the trained config is not the study\'s; it differs in '
                                 + ', '.join(differing_keys(finished.cfg, task.cfg)[:6]))
            self._evaluate(job, finished)
            goes_on = True
        except (ValueError, OSError, RuntimeError) as error:
            self._fail(task, str(error))
        finally:
            if not goes_on:
                os.close(job.lock)

    def _record(self, task: Task, finished: Finished, evaluated: dict[str, Evaluated]) -> None:
        settings = self.settings
        teachers = teacher_records(task.teachers, finished, settings.root)
        record = make_record(self.study, task.row, task.seed, finished, evaluated, settings.root, settings.threads,
                             settings.jobs, train_arguments(task, settings, for_record=True), teachers)
        old = read_record(record_path(self.settings.results, task.row, task.seed))
        if task.state == 'retrain' and old is not None:
            same = old['weights_sha256'] == record['weights_sha256']
            self._say(f'{task.name}: trained again, ' + ('the same weights' if same else
                      f'OTHER weights than recorded: AP {record["accuracy"]["AP"]:.1f}, recorded '
                      f'{old["accuracy"]["AP"]:.1f}; the record stays, new students name the new weights'))
            if not same or 'detections' in old:
                return
            record = with_detections(old, record)  # one from before detections were kept
        keep_detections(evaluated, self.settings.results, task.row, task.seed)
        write_record(self.settings.results, task.row, task.seed, record)
        self._say(f'{task.name}: AP {record["accuracy"]["AP"]:.1f}, {record["wall_seconds"] / 60:.1f} min')
        self.after_each()

    def _fail(self, task: Task, reason: str) -> None:
        if task in self.pending:
            self.pending.remove(task)
        self.failed.append(task)
        self._say(f'{task.name}: FAILED: {reason}')

    def _say(self, text: str) -> None:
        done = self.total - len(self.pending) - len(self.running)
        print(f'{time.strftime("%H:%M:%S")} [{done}/{self.total}] {text}', flush=True)

    def _report(self) -> None:
        parts = [f'{job.task.name} ' + ('evaluating' if job.finished else last_progress(
            self.settings.run_dir(job.task.row, job.task.seed) + '.log')) for job in self.running.values()]
        left = self._seconds_left()
        parts.append('study: eta unknown' if left is None else f'study: eta {left / 60:.0f} min')
        self._say('; '.join(parts))

    def _seconds_left(self) -> float | None:
        """From the mean time of a row's recorded runs; a row without any takes the mean of the other rows."""
        known = {row.name: mean_seconds(row_records(self.settings.results, row)) for row in self.study.rows}
        times = [value for value in known.values() if value is not None]
        if not times:
            return None
        def estimate(task: Task) -> float:
            return known[task.row.name] or sum(times) / len(times)
        left = sum(map(estimate, self.pending))
        left += sum(max(estimate(job.task) - (time.monotonic() - job.start), 0) for job in self.running.values())
        return left / self.settings.jobs

    def _stop_all(self) -> None:
        """Ask the children to stop after their step; a second Ctrl-C, or too long a wait, ends them."""
        for process in self.running:
            process.terminate()  # a shell's background jobs, and what they start, are deaf to SIGINT
        try:
            deadline = time.monotonic() + _STOP_SECONDS
            for process in self.running:
                process.wait(max(deadline - time.monotonic(), 0))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for process in self.running:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        for job in self.running.values():
            os.close(job.lock)
        self.running = {}
