"""The head of YOLOv5 and YOLOv3: for each anchor of each cell a box, an objectness, and a score per class."""

import math

import torch
from torch import Tensor, nn

BOX = 5  # numbers of an anchor before the classes: x, y, w, h, objectness
LARGEST = 7.0  # w of e^w: a width of 1000 anchors, which no picture has; keeps a wild weight finite


class AnchorDetect(nn.Module):
    """One 1x1 convolution a level, whose channels are anchor by anchor x, y, w, h, objectness and the classes.

    `decode` says what x, y, w, h mean, s being the sigmoid: `yolov5` is centre = 2 s - 0.5 + cell and size =
    (2 s)^2 anchors; `darknet` is centre = s + cell and size = e^w anchors (Redmon, YOLOv3).
    """

    def __init__(self, nc: int, anchors: Tensor, channels: list[int], stride: Tensor, decode: str = "yolov5") -> None:
        """anchors (levels, anchors, 2) and stride (levels,) in pixels; channels of each level's feature map."""
        super().__init__()
        self.nc, self.no, self.decode = nc, BOX + nc, decode
        self.nl, self.na = anchors.shape[:2]
        self.register_buffer("anchors", anchors / stride.view(-1, 1, 1))  # (levels, anchors, 2) in cells
        self.register_buffer("stride", stride.clone(), persistent=False)
        self.m = nn.ModuleList(self.fresh(c, s) for c, s in zip(channels, stride.tolist(), strict=True))

    def fresh(self, channels: int, stride: float) -> nn.Conv2d:
        """The convolution of a level with torch's random weights, and YOLOv5's priors added to its biases.

        They are 8 objects on a picture of 640 pixels, and classes of which 0.6 in all are there. A single class is
        always there, whatever the picture shows: YOLOv5's loss never trains it.
        """
        conv = nn.Conv2d(channels, self.no * self.na, 1)
        with torch.no_grad():
            bias = conv.bias.view(self.na, self.no)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, BOX:] += math.log(0.6 / (self.nc - 0.99999))
            if self.nc == 1:
                conv.weight.view(self.na, self.no, -1)[:, BOX:] = 0
        return conv

    @torch.no_grad()
    def take_classes(self, rows: list[int | None]) -> None:
        """Keep boxes and objectness, and have a class for each of `rows`: the old one of that number, or fresh."""
        old = torch.tensor([BOX + row for row in rows if row is not None], dtype=torch.long)
        new = torch.tensor([BOX + i for i, row in enumerate(rows) if row is not None], dtype=torch.long)
        old, new = torch.cat((torch.arange(BOX), old)), torch.cat((torch.arange(BOX), new))
        before, self.nc, self.no = self.no, len(rows), BOX + len(rows)
        for i, conv in enumerate(self.m):
            fresh = self.fresh(conv.in_channels, float(self.stride[i]))
            for name in ("weight", "bias"):
                target, source = getattr(fresh, name), getattr(conv, name)
                target.view(self.na, self.no, -1)[:, new] = source.view(self.na, before, -1)[:, old]
            self.m[i] = fresh

    @property
    def pixels(self) -> Tensor:
        """The anchors (levels, anchors, 2) in pixels."""
        return self.anchors * self.stride.view(-1, 1, 1)

    def forward(self, features: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Raw numbers of each level, (b, anchors, h, w, 5 + nc); in evaluation mode boxes and scores before them."""
        levels = []
        for conv, x in zip(self.m, features, strict=True):
            b, _, h, w = x.shape
            levels.append(conv(x).view(b, self.na, self.no, h, w).permute(0, 1, 3, 4, 2))
        return levels if self.training else (self.boxes_and_scores(levels), levels)

    def centres(self, raw: Tensor) -> Tensor:
        """Centres relative to their cell, in cells, of raw x, y (..., 2)."""
        return raw.sigmoid() if self.decode == "darknet" else raw.sigmoid() * 2 - 0.5

    def sizes(self, raw: Tensor) -> Tensor:
        """Widths and heights in anchors of raw w, h (..., 2)."""
        return raw.clamp(max=LARGEST).exp() if self.decode == "darknet" else (raw.sigmoid() * 2) ** 2

    def boxes_and_scores(self, levels: list[Tensor]) -> Tensor:
        """xywh in pixels and scores (b, 4 + nc, a), a score being objectness times class; in float32 always."""
        found = []
        with torch.autocast(levels[0].device.type, enabled=False):
            for level, anchors, stride in zip(levels, self.anchors.float(), self.stride.float(), strict=True):
                raw = level.float()  # bf16 and fp16 would round boxes to whole pixels
                b, _, h, w, _ = raw.shape
                y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
                cells = torch.stack((x, y), -1).to(raw)  # (h, w, 2)
                centre = (self.centres(raw[..., :2]) + cells) * stride
                size = self.sizes(raw[..., 2:4]) * (anchors * stride).view(1, self.na, 1, 1, 2)
                score = raw[..., BOX:].sigmoid() * raw[..., 4:5].sigmoid()
                found.append(torch.cat((centre, size, score), -1).flatten(1, 3))  # (b, anchors * h * w, 4 + nc)
        return torch.cat(found, 1).transpose(1, 2)
