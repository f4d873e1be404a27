"""Darknet, small: cfgs of YOLOv3 of any width, files of random weights, and what a network of them puts out."""

import struct
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
Layers = list[tuple[str, dict[str, str]]]


class Cfg:
    """A cfg as it is written, part by part; channels are divided by `narrow`."""

    def __init__(self, nc: int, narrow: int, net: str) -> None:
        self.nc, self.narrow = nc, narrow
        self.lines = ["# written for a test", "[net]", net or "width=96\nheight=96\nchannels=3", ""]

    def conv(self, filters: int, size: int, stride: int = 1) -> None:
        filters = max(filters // self.narrow, 8)
        words = f"batch_normalize=1\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation=leaky\n"
        self.lines.append(f"[convolutional]\n{words}")

    def layer(self, name: str, **options: object) -> None:
        self.lines.append("\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in options.items()), ""]))

    def output(self, mask: str, of: str = ANCHORS) -> None:
        self.layer("convolutional", size=1, stride=1, pad=1, filters=3 * (5 + self.nc), activation="linear")
        self.layer("yolo", mask=mask, anchors=of, classes=self.nc, num=9, ignore_thresh=0.7, truth_thresh=1)


def cfg(kind: str, nc: int = 2, narrow: int = 1, blocks: tuple[int, ...] = (1, 2, 8, 8, 4), net: str = "") -> str:
    """A cfg of yolov3, yolov3-spp or yolov3-tiny; channels divided by `narrow`, residual `blocks` at each stride."""
    written = Cfg(nc, narrow, net)
    if kind == "yolov3-tiny":
        write_tiny(written)
    else:
        write_whole(written, blocks, kind == "yolov3-spp")
    return "\n".join(written.lines)


def write_tiny(to: Cfg) -> None:
    """The layers of yolov3-tiny."""
    for filters in (16, 32, 64, 128, 256, 512):
        to.conv(filters, 3)
        to.layer("maxpool", size=2, stride=1 if filters == 512 else 2)
    for filters, size in ((1024, 3), (256, 1), (512, 3)):
        to.conv(filters, size)
    to.output("3,4,5", "10,14, 23,27, 37,58, 81,82, 135,169, 344,319")
    to.layer("route", layers=-4)
    to.conv(128, 1)
    to.layer("upsample", stride=2)
    to.layer("route", layers="-1, 8")
    to.conv(256, 3)
    to.output("0,1,2", "10,14, 23,27, 37,58, 81,82, 135,169, 344,319")


def write_whole(to: Cfg, blocks: tuple[int, ...], spp: bool) -> None:
    """The layers of yolov3, or of yolov3-spp."""
    to.conv(32, 3)
    for level, n in enumerate(blocks):
        to.conv(64 << level, 3, 2)
        for _ in range(n):
            to.conv(32 << level, 1)
            to.conv(64 << level, 3)
            to.layer("shortcut", **{"from": -3, "activation": "linear"})
    *_, at_8, at_16, _ = accumulate(1 + 3 * n for n in blocks)  # the last layer of these strides
    for filters, size in ((512, 1), (1024, 3), (512, 1)):
        to.conv(filters, size)
    if spp:
        for size, back in ((5, -2), (9, -4), (13, 0)):
            to.layer("maxpool", stride=1, size=size)
            if back:
                to.layer("route", layers=back)
        to.layer("route", layers="-1,-3,-5,-6")
        to.conv(512, 1)
    for filters, size in ((1024, 3), (512, 1), (1024, 3)):
        to.conv(filters, size)
    to.output("6,7,8")
    for filters, below, mask in ((256, at_16, "3,4,5"), (128, at_8, "0,1,2")):
        to.layer("route", layers=-4)
        to.conv(filters, 1)
        to.layer("upsample", stride=2)
        to.layer("route", layers=f"-1, {below}")
        for _ in range(3):
            to.conv(filters, 1)
            to.conv(2 * filters, 3)
        to.output(mask)


def layers_of(text: str) -> Layers:
    """The parts of a cfg."""
    found: Layers = []
    for line in text.splitlines():
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif "=" in line:
            key, _, value = line.partition("=")
            found[-1][1][key.strip()] = value.strip()
    return found


def write_weights(path: Path, text: str, seen_of: str = "<q", seed: int = 0) -> Path:
    """Random weights of a cfg as Darknet writes them; seen_of: how many bytes count the pictures seen, by version."""
    random, channels = np.random.default_rng(seed), [3]
    with open(path, "wb") as file:
        file.write(struct.pack("<3i", 0, 2 if seen_of == "<q" else 1, 0) + struct.pack(seen_of, 32013312))
        for kind, options in layers_of(text)[1:]:
            c = channels[-1]
            if kind == "convolutional":
                out, size = int(options["filters"]), int(options["size"])
                rows = [random.normal(0, 0.1, out)]
                if "batch_normalize" in options:
                    rows += [random.uniform(0.8, 1.2, out), random.normal(0, 0.1, out), random.uniform(0.5, 1.5, out)]
                scale = (1.5 / (c * size * size)) ** 0.5
                for numbers in (*rows, random.standard_normal(out * c * size * size, np.float32) * scale):
                    file.write(numbers.astype("<f4").tobytes())
                c = out
            elif kind == "route":
                places = [int(word) for word in options["layers"].split(",")]
                c = sum(channels[place + (1 if place >= 0 else 0)] for place in places)
            channels.append(c)
    return path


def interpret(text: str, path: Path, x: Tensor, header: int = 20) -> list[Tensor]:
    """What goes into each [yolo], (b, anchors * (5 + nc), h, w), layer by layer as Darknet computes it, float64."""
    numbers, at = torch.from_numpy(np.fromfile(path, "<f4", offset=header)).double(), 0
    x = x.double()

    def take(*shape: int) -> Tensor:
        nonlocal at
        n = int(np.prod(shape))
        at += n
        return numbers[at - n : at].view(shape)

    outputs, yolos = [], []
    for kind, options in layers_of(text)[1:]:
        if kind == "convolutional":
            out, size = int(options["filters"]), int(options["size"])
            bias, norm = take(out), [take(out) for _ in range(3 if "batch_normalize" in options else 0)]
            x = F.conv2d(x, take(out, x.shape[1], size, size), None, int(options["stride"]), size // 2)
            if norm:
                weight, mean, var = (v.view(1, -1, 1, 1) for v in norm)
                x = (x - mean) / (var + 1e-5).sqrt() * weight
            x = x + bias.view(1, -1, 1, 1)
            x = torch.where(x > 0, x, 0.1 * x) if options["activation"] == "leaky" else x
        elif kind == "shortcut":
            x = x + outputs[int(options["from"])]
        elif kind == "route":
            x = torch.cat([outputs[int(word)] for word in options["layers"].split(",")], 1)
        elif kind == "maxpool":
            size, stride = int(options["size"]), int(options["stride"])
            before = (size - 1) // 2
            pad = (before, size - 1 - before) * 2
            x = F.max_pool2d(F.pad(x, pad, value=-torch.inf), size, stride)
        elif kind == "upsample":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        elif kind == "yolo":
            yolos.append(x)
        outputs.append(x)
    assert at == len(numbers), "the file was read to its end"
    return yolos
