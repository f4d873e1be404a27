"""What only a GPU can show: mixed precision, the scaler, pinned batches, batch -1. Skipped without one."""

import copy
import gc
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import detect
import train
import val
from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.device.colour import recolour
from data.loading.device.prepare import colour_change
from data.loading.loader import build_train_loader
from models.detector import build_detector
from models.loss.detection import DetectionLoss
from models.training.ema import EMA
from models.training.fit import Demand, largest_batch
from models.training.graph import require_graphs
from models.training.optim import build_optimizer, optimizer_step
from models.training.state import build_training
from tests.helpers.runs import guesser, replaced, run_train, state_of
from tests.models.test_loss import NAMES, full, random_batch
from utils.config.schema import Hyp
from utils.device.images import ToDevice, preprocess
from utils.device.ranks import DTYPES, Ranks
from utils.device.streams import sent_ahead
from utils.errors import Diverged, UserError
from utils.evaluation.nms import non_max_suppression
from utils.run.log import RunLog, read_metrics
from utils.run.state.writer import Writer

DEMO = "models/demo.yaml"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("amp", ["fp16", "bf16", "off"])
def test_every_precision_trains_and_resumes(toy_args, tmp_path, amp):
    words = [*replaced(toy_args, "--device", "cuda"), "--weights", DEMO, f"amp={amp}", "lr0=0.002"]
    folder = run_train(*words, "--stop-after", 1, project=tmp_path)
    train.main(["--resume", str(folder / "weights/last.pt"), "--device", "cuda"])
    state = state_of(folder)
    assert state["progress"]["finished"] and state["hyp"]["amp"] == amp
    assert all(bool(v.isfinite().all()) for v in state["ema"]["model"].values())
    assert len(read_metrics(folder / "metrics.csv")) == 3
    if amp == "fp16":
        assert state["scaler"]["scale"] > 0


def test_the_largest_batch_leaves_what_others_hold_and_a_fuller_one_gives_one_message(toy_args, tmp_path):
    model, _ = build_detector("yolov8n.yaml", ["a", "b"])
    model, hyp, demand = model.cuda(), Hyp(imgsz=640, amp="fp16"), Demand(20, np.array([3, 4]))
    alone = largest_batch(model, hyp, demand, most=100000)
    free = torch.cuda.mem_get_info()[0]
    other = torch.empty(free // 2, dtype=torch.uint8, device="cuda")
    assert 0.3 * alone < largest_batch(model, hyp, demand, most=100000) < 0.7 * alone
    del other, model
    torch.cuda.empty_cache()
    room = torch.cuda.memory_allocated() + 200 * 2**20  # for a step of 8 pictures that needs more
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(UserError, match="--batch [0-9]+ would fit|lower imgsz"):
            train.main([*replaced(replaced(toy_args, "--device", "cuda"), "--imgsz", 640), "--project", str(tmp_path)])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("words", [{"graph": True}, {"hsv_on": "device"}])
def test_the_largest_batch_counts_what_graphs_and_colours_hold(words):
    """A quarter of the memory is enough to see it: with either of them fewer pictures fit, and they do fit."""
    total = torch.cuda.get_device_properties(0).total_memory
    other = torch.empty(max(torch.cuda.mem_get_info()[0] - total // 4, 0), dtype=torch.uint8, device="cuda")
    found = []
    for more in ({}, words):
        model, hyp = build_detector("yolov8n.yaml", ["a", "b"])[0].cuda(), Hyp(imgsz=320, amp="fp16", **more)
        found.append(largest_batch(model, hyp, Demand(20, np.array([3, 4]), colour_change(hyp)), most=100000))
        del model
        gc.collect()
        torch.cuda.empty_cache()
    assert 0.3 * found[0] < found[1] < found[0]
    del other


@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_batches_arrive_as_they_were_made(workers):
    """While the GPU is busy and the loop runs ahead of it, no buffer is written over before its copy has been made."""
    index = build_index(load_dataset_yaml("toy-target"), "train")
    hyp, device = Hyp(imgsz=320, epochs=2), torch.device("cuda")
    oracle = build_train_loader(index, hyp.model_copy(update={"loader": "torch"}), batch=16, workers=0)
    load, arrived = torch.rand(4096, 4096, device=device), []
    for batch in build_train_loader(index, hyp, batch=16, workers=workers, pin=True).epoch(0):
        for _ in range(20):
            load = (load @ load).clamp(0, 1)
        arrived.append(preprocess(batch["img"], device))
    for got, batch in zip(arrived, oracle.epoch(0), strict=True):
        torch.testing.assert_close(got.cpu(), preprocess(batch["img"], torch.device("cpu")))


def test_fp16_skips_nothing_at_first_and_ends_near_full_precision(toy_args, tmp_path):
    states = {}
    for amp in ("fp16", "off"):
        words = [*replaced(toy_args, "--device", "cuda"), "--weights", DEMO, f"amp={amp}", "lr0=0.002"]
        states[amp] = state_of(run_train(*words, project=tmp_path, name=amp))
    assert states["fp16"]["progress"]["skipped"] <= 1
    low, full = (states[amp]["ema"]["model"] for amp in ("fp16", "off"))
    for key, value in full.items():
        if value.is_floating_point():
            torch.testing.assert_close(low[key], value, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_step_that_is_not_finite_is_skipped_without_a_wait(kind):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).cuda()
    optimizer, ema = build_optimizer(model, Hyp(optimizer=kind), 0.1), EMA(model, 0.9, 1.0)
    scaler = torch.amp.GradScaler("cuda", enabled=False)
    images, before = torch.rand(2, 3, 8, 8, device="cuda"), copy.deepcopy(model[0].weight)
    for factor in (float("inf"), 1.0):
        (factor * model(images).square().sum()).backward()
        torch.cuda.set_sync_debug_mode("error")
        try:
            optimizer_step(model, optimizer, scaler, ema, 10.0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(model[0].weight, before) == (factor != 1.0)
    assert ema.updates == 1 and all(bool(v.isfinite().all()) for v in ema.model.state_dict().values())


@pytest.mark.parametrize("amp", ["fp16", "bf16"])
@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolo26n.yaml"])
def test_the_criterion_of_a_network_in_low_precision_is_computed_in_full_precision(amp, yaml):
    """Loss and gradients of its raw output are those of the same numbers in float32, inside the autocast, too."""
    torch.manual_seed(0)
    model = build_detector(yaml, NAMES)[0].cuda()
    loss_fn, batch = DetectionLoss(model, Hyp()), {key: value.cuda() for key, value in random_batch().items()}
    with torch.autocast("cuda", dtype=DTYPES[amp]):
        preds = model(batch["img"])
        branches = [preds] if "boxes" in preds else list(preds.values())
        low = [branch[key] for branch in branches for key in ("boxes", "scores")]
        assert all(part.dtype == DTYPES[amp] for part in low)
        loss, _ = loss_fn(preds, batch)
    wanted = full(preds)
    branches = [wanted] if "boxes" in wanted else list(wanted.values())
    high = [branch[key].requires_grad_() for branch in branches for key in ("boxes", "scores")]
    reference, _ = loss_fn(wanted, batch)
    torch.testing.assert_close(loss, reference)
    gradients = torch.autograd.grad(loss, low), torch.autograd.grad(reference, high)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.01, atol=1e-6)


def test_a_state_is_written_as_it_was_while_the_gpu_goes_on(tmp_path):
    load, weight, path = torch.rand(4096, 4096, device="cuda"), torch.zeros(2**20, device="cuda"), tmp_path / "last.pt"
    for _ in range(50):
        load = (load @ load).clamp(0, 1)  # what was asked for before the state is still to be done
    weight += load[0, 0].clamp(1, 1)
    writer = Writer(background=True)
    writer.save([path], {"model": {"w": weight}})
    weight += 1
    writer.join()
    assert bool((torch.load(path, weights_only=True, map_location="cpu")["model"]["w"] == 1).all())


@pytest.mark.parametrize("amp", ["fp16", "bf16", "off"])
def test_what_is_lost_ends_a_run_and_reaches_no_state(toy_args, tmp_path, amp):
    """A loss that is infinite from the first batch on: the state is that of before, though a GPU is looked at late."""
    words = [*replaced(toy_args, "--device", "cuda"), "--weights", DEMO, f"amp={amp}", "box=1e38", "--epochs", "9"]
    with pytest.raises(Diverged):
        run_train(*words, project=tmp_path)
    state = state_of(tmp_path / "exp")
    assert all(bool(v.isfinite().all()) for part in (state["model"], state["ema"]["model"]) for v in part.values())
    assert (tmp_path / "exp/diverged.pt").is_file()


def test_a_run_of_a_cpu_goes_on_with_the_kernels_of_a_gpu(toy_args, tmp_path):
    folder = run_train(*toy_args, "--stop-after", 1, project=tmp_path)
    train.main(["--resume", str(folder / "weights/last.pt"), "--device", "cuda"])
    state = state_of(folder)
    assert state["progress"]["finished"] and all(group["fused"] for group in state["optimizer"]["param_groups"])


def test_a_pass_of_val_stays_on_its_gpu(toy, toy_args, tmp_path):
    """torchrun's one rank with NCCL is the other way to get there."""
    folder = run_train(*replaced(toy_args, "--device", "cuda"), project=tmp_path)
    last = torch.cuda.device_count() - 1
    words = ["--weights", folder / "weights/best.pt", "--data", toy, "--device", f"cuda:{last}", "--project", tmp_path]
    assert 0 <= val.main([*map(str, words), "--noplots"])["val/mAP50-95"] <= 1
    assert torch.cuda.current_device() == last


def test_a_second_ring_is_registered_where_the_first_one_was():
    index = build_index(load_dataset_yaml("toy-target"), "train")
    for _ in range(3):
        loader = build_train_loader(index, Hyp(imgsz=64, epochs=1), batch=16, workers=1, pin=True)
        batch = next(iter(loader.epoch(0)))
        assert loader.ring.locked and preprocess(batch["img"], torch.device("cuda")).max() <= 1
        loader.close()
        del loader, batch
        gc.collect()
    torch.ones(1, device="cuda").add_(1)  # no error is left behind


FORKS = """
import os, sys, torch
os.register_at_fork(before=lambda: print("forked", "after" if torch.cuda.is_initialized() else "before"))
import train
train.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_workers_are_forked_before_the_gpu_is_opened(toy_args, tmp_path):
    words = [*replaced(replaced(toy_args, "--device", "cuda"), "--workers", 2), "--project", tmp_path]
    done = subprocess.run([sys.executable, "-c", FORKS, *map(str, words)], capture_output=True, text=True, check=True)
    assert "forked before" in done.stdout and "forked after" not in done.stdout


def test_equal_seeds_end_with_equal_bits_where_that_is_asked_for(toy_args, tmp_path):
    words = [*replaced(toy_args, "--device", "cuda"), "deterministic=true"]
    a, b = (state_of(run_train(*words, project=tmp_path, name=name))["ema"]["model"] for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


class Summed:
    """A loss that waits for nothing, in place of a criterion."""

    names = ("box", "cls", "dfl")

    def __call__(self, preds, batch):
        loss = preds["boxes"].float().square().mean() + preds["scores"].float().square().mean()
        return loss, torch.stack([loss.detach()] * 3)


@pytest.mark.parametrize("amp", ["fp16", "bf16", "off"])
@pytest.mark.parametrize("hsv_on", ["host", "device"])
def test_nothing_in_a_step_waits_but_the_criterion(toy, tmp_path, amp, hsv_on):
    """From a batch of the loader to the average of the weights, and the log; the meter looks at every tenth batch."""
    index, device = build_index(load_dataset_yaml(toy), "train"), torch.device("cuda", 0)
    hyp = Hyp(imgsz=64, epochs=2, batch=4, nbs=4, amp=amp, hsv_on=hsv_on)
    loader = build_train_loader(index, hyp, batch=4, workers=2, pin=True)
    loader.start(0)
    model = build_detector(DEMO, list(index.names))[0].to(device, memory_format=torch.channels_last)
    ranks, runlog = Ranks(0, 1, device), RunLog(tmp_path, 0, 0, False)
    training, _ = build_training(model, hyp, len(loader), np.ones(index.nc), ranks, DTYPES[amp], None)
    training.loss_fn = Summed()
    run = train.Run(hyp, ranks, tmp_path, 32, {}, False, dtype=DTYPES[amp])

    def strict():
        for k, batch in enumerate(loader.epoch(0)):
            torch.cuda.set_sync_debug_mode("error" if k > 1 else "default")  # the first steps make what is kept
            yield batch
        torch.cuda.set_sync_debug_mode("default")

    try:
        train.train_one_epoch(training, model, strict(), run, runlog)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        runlog.close()
        loader.close()
    assert training.progress.ni == len(loader) and training.progress.skipped == 0


def test_batches_that_are_sent_ahead_arrive_as_they_were_made():
    """While the GPU is busy: neither a buffer of the host nor one of the device is written over too early."""
    index = build_index(load_dataset_yaml("toy-target"), "train")
    hyp, device = Hyp(imgsz=320, epochs=2), torch.device("cuda", 0)
    oracle = build_train_loader(index, hyp, batch=16, workers=0)
    loader = build_train_loader(index, hyp, batch=16, workers=2, pin=True)
    load, sums = torch.rand(4096, 4096, device=device), []
    for _, images in sent_ahead(loader.epoch(0), device, ToDevice(device, True)):
        for _ in range(20):
            load = (load @ load).clamp(0, 1)
        sums.append(images.double().sum((1, 2, 3)))
    loader.close()
    for got, batch in zip(sums, oracle.epoch(0), strict=True):
        torch.testing.assert_close(got.cpu(), ToDevice(torch.device("cpu"), True)(batch).double().sum((1, 2, 3)))


@pytest.mark.parametrize("mode", ["exact", "matrix"])
def test_colours_of_the_device_are_those_of_the_host(mode):
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    gains = np.random.default_rng(0).uniform(-1, 1, (4, 3))
    there = recolour(images.cuda(), gains, mode).cpu().int()
    assert (there - recolour(images, gains, mode).int()).abs().max() <= 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_detections_of_a_batch_are_those_of_its_pictures_on_a_cpu(multi_label):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(3, 4, 400, generator=generator) * 40 + 20
    pred = torch.cat((boxes, torch.rand(3, 5, 400, generator=generator)), 1)
    settings = (0.01, 0.6, 300, multi_label, False)
    for a, b in zip(non_max_suppression(pred.cuda(), *settings), non_max_suppression(pred, *settings), strict=True):
        assert not a.is_cuda
        torch.testing.assert_close(a, b)


def test_val_scores_on_a_gpu_what_it_scores_on_a_cpu(toy, tmp_path):
    words = ["--weights", guesser(), "--data", toy, "--imgsz", 64, "--project", tmp_path, "--noplots", "--amp", "off"]
    there, here = (val.main([*map(str, words), "--device", device]) for device in ("cuda:0", "cpu"))
    for name, value in here.items():
        assert there[name] == pytest.approx(value, abs=0.01, nan_ok=True), name


def test_detect_finds_on_a_gpu_what_it_finds_on_a_cpu(toy, tmp_path):
    """Pictures and the frames of a video, whose batches are sent ahead: each with its own boxes, to the last one."""
    video = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 12, (96, 64))
    for k in range(7):
        writer.write(np.full((64, 96, 3), 30 * k, np.uint8))
    writer.release()
    words = ["--weights", guesser(), "--source", toy.parent / "images/val", video, "--imgsz", 64, "--conf", 0.01]
    words += ["--batch", 3, "--nosave", "--amp", "off", "--project", tmp_path]
    rows = {}
    for device in ("cuda:0", "cpu"):
        detect.main([*map(str, words), "--device", device, "--name", device[:4]])
        rows[device] = json.loads((tmp_path / device[:4] / "predictions.json").read_text())
    there, here = ({(r["file_name"], r.get("frame")): r["score"] for r in rows[device]} for device in rows)
    assert there.keys() == here.keys() and len(there) > 7
    for key, score in here.items():  # the last one of each picture
        assert there[key] == pytest.approx(score, abs=0.01), key


@pytest.mark.parametrize("amp", ["fp16", "off"])
def test_a_replayed_network_learns_what_a_called_one_does(toy_args, tmp_path, amp):
    states = {}
    for graph in ("false", "true"):
        words = [
            *replaced(toy_args, "--device", "cuda"),
            "--weights",
            DEMO,
            f"amp={amp}",
            "lr0=0.002",
            f"graph={graph}",
        ]
        states[graph] = state_of(run_train(*words, project=tmp_path, name=graph))["ema"]["model"]
    for key, value in states["false"].items():
        torch.testing.assert_close(states["true"][key], value, rtol=0.1, atol=0.02)


def test_one_rank_of_nccl_has_the_gradients_of_none(tmp_path):
    torch.distributed.init_process_group("nccl", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = torch.nn.Conv2d(3, 4, 3).cuda()
        joined = torch.nn.parallel.DistributedDataParallel(copy.deepcopy(model))
        images = torch.rand(2, 3, 8, 8, device="cuda")
        for network in (model, joined):
            network(images).square().sum().backward()
        torch.testing.assert_close(joined.module.weight.grad, model.weight.grad)
        with pytest.raises(UserError, match="one GPU and one rank"):
            require_graphs(Hyp(graph=True), Ranks(0, 2, torch.device("cuda", 0)))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_torchrun_trains_on_a_gpu(toy_args, tmp_path):
    words = [*replaced(toy_args, "--device", "cuda"), "--project", tmp_path]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 1, "train.py", *words]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    assert state_of(tmp_path / "exp")["progress"]["finished"]
