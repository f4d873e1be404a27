"""Device and ranks: one process, or as many as torchrun started."""

import os
from dataclasses import dataclass

import torch

from utils.env import cores, keep_freed_memory
from utils.errors import UserError

BF16_ON_CPU = False  # whether `amp: auto` takes bf16 on a CPU that has it: one of two sets differs, docs/results.md
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "off": None}  # of autocast, by the name that --amp has
SCORED = DTYPES | {"bf16": None}  # the same of a run's evaluations: bf16 moves mAP by up to 0.7 points, docs/results.md


@dataclass(frozen=True)
class Ranks:
    """Where this process stands; rank 0 alone writes and prints."""

    rank: int
    world_size: int
    device: torch.device

    def describe(self) -> str:
        """The device by name and the number of ranks, for the console."""
        gpu = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if gpu else f"CPU, {torch.get_num_threads()} threads"
        return name if self.world_size == 1 else f"{self.world_size} x {name}"


def pick_device(spec: str, local_rank: int = 0, local_ranks: int = 1) -> torch.device:
    """'auto', 'cpu', 'cuda', '1', 'cuda:1' -> device, with several ranks on this machine the one of this rank.

    UserError for a GPU that is not there, for more ranks than GPUs, and for one GPU named for several ranks.
    """
    text = spec.lower().removeprefix("cuda").removeprefix(":").strip()
    if text == "cpu":
        return torch.device("cpu")
    if "," in text:
        n = len(text.split(","))
        raise UserError(f"device {spec}: several GPUs are started by torchrun --nproc-per-node {n} train.py ...")
    if text not in {"auto", ""} and local_ranks > 1:
        raise UserError(
            f"device {spec} with {local_ranks} ranks on this machine: each has a GPU of its own. Use --device cuda and "
            "choose the GPUs by CUDA_VISIBLE_DEVICES, or --device cpu."
        )
    if not torch.cuda.is_available():
        if spec.lower() in {"auto", ""}:
            return torch.device("cpu")
        raise UserError(f"device {spec} was asked for, but torch {torch.__version__} sees no GPU. Use --device cpu.")
    return torch.device("cuda", _number(spec, text, local_rank, local_ranks))


def _number(spec: str, text: str, local_rank: int, local_ranks: int) -> int:
    """Number of the GPU that a rank uses."""
    count = torch.cuda.device_count()
    if local_ranks > count:
        raise UserError(
            f"{local_ranks} ranks were started on a machine with {count} GPU{'s' * (count > 1)}. Use torchrun "
            f"--nproc-per-node {count}, or --device cpu."
        )
    number = local_rank if text in {"auto", ""} else int(text) if text.isdigit() else -1
    if not 0 <= number < count:
        have = ", ".join(f"{i}: {torch.cuda.get_device_name(i)}" for i in range(count))
        raise UserError(f"device {spec} does not exist. There is {have}.")
    return number


def pick_amp(amp: str, device: torch.device) -> str:
    """'auto' -> fp16 on CUDA; on a CPU off, or bf16 (BF16_ON_CPU); UserError for fp16 on a CPU."""
    cuda = device.type == "cuda"
    if amp == "fp16" and not cuda:
        raise UserError("amp fp16 needs a GPU. On a CPU use --amp bf16 or --amp off.")
    if amp != "auto":
        return amp
    return "fp16" if cuda else "bf16" if BF16_ON_CPU and cpu_has_bf16() else "off"


def amp_words(amp: str, device: torch.device) -> str:
    """What `pick_amp` makes of it, and where it had the choice why."""
    used = pick_amp(amp, device)
    if amp != "auto":
        return used
    if device.type == "cuda":
        return f"{used} (auto: a GPU)"
    if not cpu_has_bf16():
        return f"{used} (auto: this processor has no bf16)"
    return f"{used} (auto: this processor has bf16{'' if used == 'bf16' else ', faster; --amp bf16 takes it'})"


def cpu_has_bf16() -> bool:
    """Whether torch says that this processor multiplies bf16 in hardware (AVX512_BF16 or AMX); False if it cannot."""
    try:
        found = torch.cpu.get_capabilities()  # of torch 2.10 and later
    except AttributeError:
        asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(ask() for ask in asks if ask)
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def local_ranks(world_size: int = 1) -> int:
    """Ranks on this machine, as torchrun says; by whatever else they were started, `world_size`."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size))


def start_ranks(spec: str) -> Ranks:
    """Read torchrun's environment and pick this rank's device. Nothing is opened: see `join_ranks`."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    rank, local_rank = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
    device = pick_device(spec, local_rank, local_ranks(world_size))
    return Ranks(rank, world_size, device)


def open_device(device: torch.device) -> None:
    """Make a GPU the one that is meant where none is named; else a context would be opened on the first one, too.

    On a CPU, memory that tensors leave is kept for the next ones.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()


def thread_count(ranks: Ranks) -> int:
    """Threads of torch: every core on a CPU, shared out over the ranks of a machine; OMP_NUM_THREADS may lower it."""
    local = local_ranks(ranks.world_size)
    return max(min(cores() // local, int(os.environ.get("OMP_NUM_THREADS") or cores())), 1)


def worker_count(wanted: int | None, ranks: Ranks) -> int:
    """Data workers of a rank: as many as wanted, but not more than its share of the cores; None: one core fewer."""
    local = local_ranks(ranks.world_size)
    share = max(cores() // local, 1)
    return max(share - 1, 1) if wanted is None else min(wanted, share)
