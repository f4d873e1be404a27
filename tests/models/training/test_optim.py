"""Parameter groups, rates, optimizer steps and the average of weights."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from ultralytics.engine.trainer import BaseTrainer

from models.detector import build_detector
from models.training.ema import EMA
from models.training.optim import (
    all_finite,
    applied_rates,
    build_optimizer,
    optimizer_step,
    parameter_groups,
    set_rates,
    with_settings_of,
)
from tests.helpers.runs import assert_same
from utils.config.schema import Hyp
from utils.schedule.plan import group_names
from utils.schedule.preview import for_data
from utils.schedule.rates import Rates, build_schedule, ema_decay_at


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False), nn.GroupNorm(1, 2))


def members(model: nn.Module, hyp: Hyp) -> dict[str, list[str]]:
    """Names of the parameters in every group."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {name: sorted(names[id(p)] for p in group) for name, group in parameter_groups(model, hyp).items()}


def test_groups_by_role():
    assert members(network(), Hyp()) == {
        "bias": ["0.bias", "1.bias", "3.bias"],
        "norm": ["1.weight", "3.weight"],
        "weight": ["0.weight", "2.weight"],
    }


@pytest.mark.parametrize("ask", ["lr_backbone", "lr_head", "warmup_epochs_backbone", "warmup_epochs_head"])
def test_groups_by_part_where_a_part_has_rates_of_its_own(ask):
    """The head is the last module; a group without parameters is left out (the head here has no weight)."""
    assert members(network(), Hyp(**{ask: 0.5})) == {
        "backbone.bias": ["0.bias", "1.bias"],
        "backbone.norm": ["1.weight"],
        "backbone.weight": ["0.weight", "2.weight"],
        "head.bias": ["3.bias"],
        "head.norm": ["3.weight"],
    }


def test_the_head_of_a_detector_is_its_last_layer():
    model, _ = build_detector("models/demo.yaml", ["a", "b"])
    found = members(model, Hyp(lr_backbone=0.1))
    last = f"model.{len(model.model) - 1}."
    assert list(found) == [f"{part}.{role}" for part in ("backbone", "head") for role in ("bias", "norm", "weight")]
    for group, names in found.items():
        assert names and all(name.startswith(last) == group.startswith("head.") for name in names), group
    trainable = sorted(name for name, p in model.named_parameters() if p.requires_grad)
    assert sorted(name for names in found.values() for name in names) == trainable


@pytest.mark.parametrize("hyp", [Hyp(), Hyp(lr_head=2.0)])
def test_frozen_parameters_are_in_no_group(hyp):
    model = network()
    model[0].requires_grad_(False)
    assert sum(len(group) for group in parameter_groups(model, hyp).values()) == 5


def test_a_frozen_part_has_no_group():
    model = network()
    model[:3].requires_grad_(False)
    optimizer = build_optimizer(model, Hyp(lr_backbone=0.1), 0.1)
    assert [group["name"] for group in optimizer.param_groups] == ["head.bias", "head.norm"]


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "musgd"])
@pytest.mark.parametrize("hyp", [{}, {"lr_backbone": 0.1}])
def test_weights_decay_and_the_rest_only_where_a_recipe_says_so(kind, hyp):
    hyp = Hyp(optimizer=kind, **hyp)
    for decays_all in (False, True):
        for group in build_optimizer(network(), hyp, 0.1, decays_all).param_groups:
            decays = decays_all or group["name"].endswith("weight")
            assert group["weight_decay"] == (0.1 if decays else 0.0), group["name"]


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "musgd"])
def test_set_rates_addresses_groups_by_name(kind):
    optimizer = build_optimizer(network(), Hyp(optimizer=kind), weight_decay=0.1)
    optimizer.param_groups.reverse()  # position means nothing
    set_rates(optimizer, Rates({"bias": 0.3, "norm": 0.2, "weight": 0.1}, 0.77, 1))
    assert applied_rates(optimizer) == {"lr/bias": 0.3, "lr/norm": 0.2, "lr/weight": 0.1, "momentum": 0.77}
    assert {g["name"]: g["weight_decay"] for g in optimizer.param_groups} == {"bias": 0.0, "norm": 0.0, "weight": 0.1}


def test_adam_beta1_ramps_and_beta2_stays():
    optimizer = build_optimizer(network(), Hyp(optimizer="adamw"), 0.0)
    schedule = build_schedule(Hyp(optimizer="adamw", epochs=4), nb=10, batch=64)
    set_rates(optimizer, schedule(0))
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)
    set_rates(optimizer, schedule(schedule.nw))
    assert optimizer.param_groups[0]["betas"] == (0.937, 0.999)


def test_every_part_gets_its_own_rate():
    hyp = Hyp(lr_backbone=0.1, lr_head=2.0, warmup="none", warmup_epochs=0, epochs=4)
    optimizer = build_optimizer(network(), hyp, 0.0)
    schedule = build_schedule(hyp, nb=10, batch=64, groups=tuple(g["name"] for g in optimizer.param_groups))
    set_rates(optimizer, schedule(0))
    rates = {name: lr for name, lr in applied_rates(optimizer).items() if name != "momentum"}
    expected = {"lr/backbone.bias", "lr/backbone.norm", "lr/backbone.weight", "lr/head.bias", "lr/head.norm"}
    assert rates.keys() == expected
    assert rates == pytest.approx({name: 1e-3 if "backbone" in name else 2e-2 for name in rates})


def one_step(model, optimizer, ema, clip_norm, scale=1.0):
    (scale * model(torch.ones(2, 3, 8, 8)).square().sum()).backward()
    return optimizer_step(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), ema, clip_norm)


def theirs(model: nn.Module, name: str, iterations: float = 0, nc: int = 80) -> torch.optim.Optimizer:
    """The optimizer of ultralytics' own trainer; `told`: what it wrote into the run's arguments."""
    trainer = SimpleNamespace(args=SimpleNamespace(lr0=0.01), data={"nc": nc})
    made = BaseTrainer.build_optimizer(trainer, model, name, 0.01, 0.937, 0.1, iterations)
    made.told = trainer.args
    return made


def settings_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, list]:
    """What every trained parameter is trained with."""
    keys = ("lr", "momentum", "weight_decay", "nesterov", "use_muon")
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: [group_of[id(p)].get(k) for k in keys] for name, p in model.named_parameters() if p.requires_grad}


def step_with_noise(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn_like(p) if p.requires_grad else None
    optimizer.step()


def test_musgd_is_ultralytics_own():
    """Rates and decay of every parameter, and the weights after three steps, bit for bit; after a resume, too."""
    torch.manual_seed(0)
    models = [build_detector("models/demo.yaml", ["a", "b"])[0] for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    hyp = Hyp(optimizer="musgd", warmup="none", warmup_epochs=0)
    ours, reference = build_optimizer(models[0], hyp, 0.1), theirs(models[1], "MuSGD")
    assert [group["name"] for group in ours.param_groups] == list(group_names(hyp))
    set_rates(ours, build_schedule(hyp, 10, 64, group_names(hyp))(0))
    assert settings_of(models[0], ours) == settings_of(models[1], reference)
    assert {lr for lr, *_ in settings_of(models[0], ours).values()} == {hyp.lr0, 3 * hyp.lr0}
    for step in range(3):
        step_with_noise(models[0], ours, step)
        step_with_noise(models[1], reference, step)
        saved, ours = copy.deepcopy(ours.state_dict()), build_optimizer(models[0], hyp, 0.1)
        ours.load_state_dict(with_settings_of(ours, saved))
    assert_same(models[0].state_dict(), models[1].state_dict())


def test_musgd_with_parts_frozen_layers_and_other_shapes():
    model, _ = build_detector("models/demo.yaml", ["a", "b"])
    model.model[0].requires_grad_(False)
    model.model[1].gamma = nn.Parameter(torch.ones(3))
    model.model[1].mix = nn.Conv1d(3, 3, 1)
    hyp = Hyp(optimizer="musgd", lr_backbone=0.1, warmup_bias_lr=0.05)
    groups = parameter_groups(model, hyp)
    assert "head.cls.weight" in groups and not [name for name in groups if name.startswith("backbone.cls")]
    assert {tuple(p.shape) for p in groups["backbone.other"]} == {(3,), (3, 3, 1)}
    assert all(p.ndim in (2, 4) for name, ps in groups.items() if name.endswith("weight") for p in ps)
    assert sum(map(len, groups.values())) == sum(p.requires_grad for p in model.parameters())
    schedule = build_schedule(hyp, 10, 64, tuple(groups))
    peak, first = schedule(schedule.nw).lr, schedule(0).lr
    assert peak["head.cls.weight"] == pytest.approx(3 * peak["head.weight"])
    assert peak["backbone.other"] == pytest.approx(0.1 * peak["head.weight"])
    assert first["head.cls.bias"] == first["head.bias"] == 0.05, "the biases' first lr is given, not a factor"
    assert build_optimizer(model, hyp, 0.1).param_groups[-1]["weight_decay"] == 0.1


@pytest.mark.parametrize(("pictures", "nc"), [(500, 3), (64 * 200, 80), (64 * 200 + 1, 3)])
def test_auto_chooses_as_ultralytics(pictures, nc):
    """By the iterations that its trainer counts; the last row has more than 10,000."""
    hyp = Hyp(recipe="ultralytics", optimizer="auto", epochs=50, batch=16)
    model, _ = build_detector("models/demo.yaml", ["a"])
    reference = theirs(model, "auto", -(-pictures // 64) * 50, nc)
    chosen = for_data(hyp, pictures, nc)
    assert chosen.optimizer == reference.told.optimizer.lower() == type(reference).__name__.lower()
    assert (chosen.lr0, chosen.warmup_bias_lr) == (reference.told.lr0, reference.told.warmup_bias_lr)
    group = reference.param_groups[0]
    assert chosen.momentum == group.get("momentum", group.get("betas", [None])[0])


def test_step_is_torchs_own_with_clipping():
    ours, theirs = network(), network()
    optimizer = build_optimizer(ours, Hyp(lr0=0.1), 0.0)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.937, nesterov=True)
    ema = EMA(ours, 0.9, 1.0)
    for _ in range(3):
        norm = one_step(ours, optimizer, ema, clip_norm=0.5, scale=1e4)
        (1e4 * theirs(torch.ones(2, 3, 8, 8)).square().sum()).backward()
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        reference.step()
        reference.zero_grad()
        torch.testing.assert_close(norm, expected)
        assert norm > 0.5, "the test must clip"
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_no_clipping_when_off():
    model = network()
    before = [p.clone() for p in model.parameters()]
    optimizer = build_optimizer(model, Hyp(lr0=1e-3, momentum=0.0), 0.0)
    (1e4 * model(torch.ones(2, 3, 8, 8)).square().sum()).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    optimizer_step(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), EMA(model, 0.9, 1.0), None)
    for p, old, gradient in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), old - 1e-3 * gradient)


def test_a_skipped_step_changes_neither_weights_nor_average():
    """fp16's scaler skips a step whose gradient is infinite."""
    model = network()
    optimizer = build_optimizer(model, Hyp(), 0.0)
    ema, scaler = EMA(model, 0.9, 1.0), torch.amp.GradScaler("cpu", init_scale=4.0)
    before = copy.deepcopy(model.state_dict())
    scaler.scale(model[0].weight.sum() * float("inf")).backward()
    optimizer_step(model, optimizer, scaler, ema, 10.0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert ema.updates == 0
    scaler.scale(model[0].weight.sum()).backward()
    optimizer_step(model, optimizer, scaler, ema, 10.0)
    assert ema.updates == 1


@pytest.fixture
def poisoned():
    """Memory that torch hands out uninitialised is full of NaN."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert bool(torch.empty(3).isnan().all())
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = False


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_kernel_of_a_gpu_steps_as_that_of_a_cpu_whatever_step_was_skipped(poisoned, kind, scaled):
    """Fused on a CPU against foreach; the first gradient and a later one are infinite, as in fp16 and out of it."""
    states, scales, slopes = [], [], [torch.randn_like(p) for p in network().parameters()]
    for fused in (False, True):
        model = network()
        optimizer = build_optimizer(model, Hyp(optimizer=kind, lr0=0.1), 0.01)
        for group in optimizer.param_groups:
            group.update(fused=fused, foreach=not fused)
        optimizer._step_supports_amp_scaling = fused  # as the constructor sets it
        ema, scaler = EMA(model, 0.9, 1.0), torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)
        for factor in (float("inf"), 1.0, 0.5, float("nan"), 2.0):
            loss = sum((p * c).sum() + p.square().sum() for p, c in zip(model.parameters(), slopes, strict=True))
            scaler.scale(factor * loss).backward()
            optimizer_step(model, optimizer, scaler, ema, 1.0)
        assert ema.updates == 3
        states.append([*model.parameters(), *(v for s in optimizer.state.values() for v in s.values())])
        scales.append(scaler.get_scale())
    assert scales == [1.0, 1.0], "halved twice"
    for a, b in zip(*states, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-6 if kind == "sgd" else 1e-4, atol=1e-8)


@pytest.mark.parametrize("clip_norm", [None, 10.0])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_step_that_is_not_finite_is_skipped_in_full_precision_too(clip_norm, value):
    model = network()
    optimizer, ema = build_optimizer(model, Hyp(), 0.1), EMA(model, 0.9, 1.0)
    one_step(model, optimizer, ema, clip_norm)
    before = copy.deepcopy([model.state_dict(), ema.state_dict()])
    momentum = [s["momentum_buffer"].clone() for s in optimizer.state.values()]
    (model[0].weight.sum() * value).backward()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    assert not optimizer_step(model, optimizer, scaler, ema, clip_norm).isfinite()
    assert_same(before, [model.state_dict(), ema.state_dict()])
    assert_same(momentum, [s["momentum_buffer"] for s in optimizer.state.values()])
    assert all(p.grad is None for p in model.parameters()), "the window is over"


def test_the_average_of_a_gpu_is_that_of_a_cpu():
    """The weight that is computed on the device, where nothing may wait, against the one computed here."""
    here, there, model = EMA(network(), 0.99, 3.0), EMA(network(), 0.99, 3.0), network()
    for taken in (False, True, True, False, True):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(torch.randn_like(value) if value.is_floating_point() else 1)
        here.update(model, torch.tensor(taken))
        with torch.no_grad():
            there._update_on_device(model, torch.tensor(taken))
    assert here.updates == there.updates == 3
    state = there.state_dict()
    for key, value in here.state_dict()["model"].items():
        torch.testing.assert_close(value, state["model"][key])
    again = EMA(network(), 0.99, 3.0)
    again.load_state_dict(copy.deepcopy(state))
    assert_same(again.state_dict(), state)


def test_ema_is_the_formula_for_weights_and_statistics():
    model = network()
    ema = EMA(model, 0.99, 3.0)
    expected = {k: v.clone().double() for k, v in model.state_dict().items()}
    for u in range(1, 6):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(1 if not value.is_floating_point() else torch.randn_like(value))
        ema.update(model)
        d = ema_decay_at(u, 0.99, 3.0)
        for key, value in model.state_dict().items():
            expected[key] = d * expected[key] + (1 - d) * value if value.is_floating_point() else value.double()
    for key, value in ema.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6)


def test_ema_of_half_weights_is_kept_in_full_precision():
    model = network().half()
    ema = EMA(model, 0.9999, 1e-9)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        ema.model[0].weight.fill_(0.5)
    ema.update(model)
    assert ema.model[0].weight.dtype == torch.float32
    assert torch.allclose(ema.model[0].weight, torch.tensor(0.5 + 0.5e-4), atol=1e-6), "half would round this away"


def test_one_number_that_is_not_finite_is_found_in_weights_and_statistics():
    model = network()
    assert all_finite(model, EMA(model, 0.9, 1.0).model)
    for part in (model[2].weight.data, model[1].running_var):
        old, part.view(-1)[-1] = part.view(-1)[-1].clone(), float("nan")
        assert not all_finite(network(), model)
        part.view(-1)[-1] = old
    assert all_finite(model)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("saved_by", ["foreach", "fused"])
def test_a_state_keeps_its_numbers_and_takes_the_kernels_of_its_new_device(kind, saved_by):
    """Saved by the kernels of a CPU and loaded into those of a GPU, which a CPU has too; and the other way."""
    layers, hyp = [nn.Sequential(nn.Linear(3, 2)) for _ in range(2)], Hyp(optimizer=kind)
    before, after = (build_optimizer(layer, hyp, 0.1) for layer in layers)
    there = "fused" if saved_by == "foreach" else "foreach"
    for optimizer, kernel in ((before, saved_by), (after, there)):
        for group in optimizer.param_groups:
            group |= {"fused": kernel == "fused", "foreach": kernel == "foreach"}
    layers[1].load_state_dict(layers[0].state_dict())

    def step(k: int) -> None:
        layers[k](torch.ones(1, 3)).square().sum().backward()
        (before, after)[k].step()
        layers[k].zero_grad()

    step(0)
    layers[1].load_state_dict(layers[0].state_dict())
    after.load_state_dict(with_settings_of(after, copy.deepcopy(before.state_dict())))
    assert all(group[there] and not group[saved_by] for group in after.param_groups)
    for k in (0, 1):
        step(k)
    torch.testing.assert_close(layers[1].state_dict(), layers[0].state_dict())
