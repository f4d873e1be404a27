"""Random state of the libraries: set once, saved with a run, restored on resume."""

import random

import numpy as np
import torch


def set_seed(seed: int, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch. Pictures do not depend on it: each is a function of (seed, epoch, position).

    deterministic: kernels of a GPU that give the same bits every time; torch warns of those that have no such twin.
    """
    torch.set_deterministic_debug_mode("warn" if deterministic else "default")  # the other call imports a compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would cost, and nothing reads fresh memory
    torch.backends.cudnn.deterministic = deterministic
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, torch.Tensor]:
    """State of torch's generators (nothing in a training step draws from Python's or numpy's)."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Continue from `random_state()`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
