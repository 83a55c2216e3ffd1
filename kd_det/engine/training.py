"""A training run: the runner with every hook that ours have, built in one place for every door that starts one."""
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..config import resume_from
from .data_check import check_data
from .distributed import leave
from .finite_hook import FiniteHook
from .interrupt_hook import InterruptHook
from .seed_hook import SeedHook
from .whole_checkpoint_hook import WholeCheckpointHook


def prepared_runner(cfg: Config, resume: str | None = None) -> Runner:
    """The runner of a config, with the hooks of every run of ours; nothing has been trained.

    Args:
        cfg (Config): resolved: ``work_dir``, launcher, seed and precision are in it. Changed in place.
        resume (str | None): ``--resume``: None, ``'auto'`` for the latest checkpoint in the work directory, or a file.

    Raises:
        ConfigError, DataError: what ``--resume`` names, or the data, cannot be used; nothing has been written.
    """
    resume_from(cfg, resume)
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    runner = Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
    seeds = SeedHook()
    seeds.take_over(runner)
    runner.register_hook(seeds, 'VERY_HIGH')
    runner.register_hook(WholeCheckpointHook(), 'VERY_HIGH')
    runner.register_hook(FiniteHook(), 'LOWEST')
    runner.register_hook(InterruptHook(), 'LOWEST')
    return runner


def run(cfg: Config, resume: str | None = None) -> Runner:
    """Train as the config says; arguments are those of :func:`prepared_runner`. Returns the runner, finished."""
    runner = prepared_runner(cfg, resume)
    runner.train()
    leave()
    return runner
