"""A training run: the runner with every hook that ours have, built in one place for every door that starts one."""
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..assignment.ignoring import check_ignoring
from ..channels import check_levels
from ..compat.checkpoint import load
from ..config import check_load_from, resume_from
from ..config_keys import check_complete, check_depth
from ..config_types import check_types
from .checkpoint_files import keep_until_verified, latest_whole, write_files_whole
from .data_check import check_data, report
from .distill_hook import distiller_of
from .distributed import leave
from .finite_hook import FiniteHook
from .interrupt_hook import InterruptHook
from .paramwise_check import check_custom_keys
from .resume_check import ResumeCheckHook
from .run_lock import work_directory
from .seed_hook import SeedHook
from .unlabelled_hook import check_unlabelled
from .whole_checkpoint_hook import WholeCheckpointHook


def prepared_runner(cfg: Config, resume: str | None = None, anyway: bool = False) -> Runner:
    """The runner of a config, with the hooks of every run of ours; nothing has been trained.

    Args:
        cfg (Config): resolved: ``work_dir``, launcher, seed and precision are in it. Changed in place.
        resume (str | None): ``--resume``: ``'auto'`` for the latest checkpoint in the work directory, or a file; None:
            as the config's own ``resume`` says.
        anyway (bool): ``--resume-anyway``: also under another config than the run's.

    Raises:
        ConfigError, DataError: what ``--resume`` names, or the data, cannot be used; nothing has been written.
    """
    check_complete(cfg)
    check_depth(cfg)
    check_types(cfg)
    check_levels(cfg.model)
    if resume is None and cfg.get('resume') and not cfg.get('load_from'):
        cfg.resume, resume = False, 'auto'
    resume_from(cfg, latest_or_afresh(cfg) if resume == 'auto' else resume)
    check_load_from(cfg)
    keep_seed(cfg)
    findings = check_data(cfg, ('train_dataloader', 'val_dataloader'))
    write_files_whole()
    runner = Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
    report(findings, runner.logger)
    check_ignoring(distiller_of(runner))
    check_custom_keys(runner)
    check_unlabelled(runner)
    keep_until_verified(runner)
    seeds = SeedHook()
    seeds.take_over(runner)
    runner.register_hook(seeds, 'VERY_HIGH')
    runner.register_hook(WholeCheckpointHook(), 'VERY_HIGH')
    runner.register_hook(ResumeCheckHook(anyway), 'LOWEST')
    runner.register_hook(FiniteHook(), 'LOWEST')
    runner.register_hook(InterruptHook(), 'LOWEST')
    return runner


def latest_or_afresh(cfg: Config) -> str | None:
    """The newest whole checkpoint of the work directory; None, with a warning, where there is none yet.

    A cluster's job script says ``--resume`` on its first start too, so that is no error.
    """
    found = latest_whole(cfg.work_dir)
    if found is None:
        print_log(f'--resume: {cfg.work_dir} holds no checkpoint; training begins afresh', 'current', level=30)
    return found


def keep_seed(cfg: Config) -> None:
    """A run without a seed in its config drew one; resumed, it goes on with that one, from the first data loader on."""
    randomness = cfg.get('randomness') or {}
    if cfg.get('resume') and cfg.get('load_from') and '://' not in cfg.load_from and randomness.get('seed') is None:
        checkpoint = load(cfg.load_from)
        meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
        cfg.randomness = dict(randomness, seed=(meta or {}).get('seed'))


def train(cfg: Config, resume: str | None = None, anyway: bool = False) -> Runner:
    """Train as the config says, in its work directory; arguments are those of :func:`prepared_runner`.

    Several processes stay a group. Returns the runner, finished.
    """
    with work_directory(cfg.work_dir):
        runner = prepared_runner(cfg, resume, anyway)
        runner.train()
    return runner


def run(cfg: Config, resume: str | None = None, anyway: bool = False) -> None:
    """:func:`train`, and the processes part."""
    train(cfg, resume, anyway)  # its runner is let go of here, as leave() needs
    leave()
