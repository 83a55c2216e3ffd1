"""Seeds that are made from what they belong to, and the random states of Python, NumPy and PyTorch."""
import hashlib
import random

import numpy as np
import torch


def seed_of(*key: int | str) -> int:
    """A seed of 63 bits from a key; keys that differ in anything give unrelated seeds, on every machine the same."""
    return int.from_bytes(hashlib.blake2b(repr(tuple(k if isinstance(k, str) else int(k) for k in key)).encode(),
                                          digest_size=8).digest(), 'little') >> 1


def seed_cpu(seed: int) -> None:
    """Set Python's, NumPy's and PyTorch's CPU random state; CUDA's stay as they are."""
    random.seed(seed)
    # Python fills the same generator in the same way: not its numbers
    np.random.seed([seed & 0xffffffff, seed >> 32, 1])
    torch.default_generator.manual_seed(seed)


def seed_everything(seed: int) -> None:
    """Set Python's, NumPy's and PyTorch's random states, those of accelerators too (without waiting for them)."""
    seed_cpu(seed)
    torch.manual_seed(seed)


def cpu_random_state() -> tuple:
    """Python's, NumPy's and PyTorch's, for :func:`set_cpu_random_state`."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def set_cpu_random_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
