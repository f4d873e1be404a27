"""Repeatable kernels, asked for and not."""

import pytest
import torch

from utils.run.state.seed import set_seed


@pytest.mark.parametrize("deterministic", [True, False])
def test_repeatable_kernels_are_chosen_by_the_setting_and_fresh_memory_is_never_filled(deterministic):
    try:
        set_seed(0, deterministic)
        assert torch.are_deterministic_algorithms_enabled() == deterministic == torch.backends.cudnn.deterministic
        assert torch.is_deterministic_algorithms_warn_only_enabled() == deterministic
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        set_seed(0)
