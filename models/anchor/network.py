"""A model yaml of YOLOv5 or YOLOv3 -> network: ultralytics' blocks below our head."""

from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import SPPF
from ultralytics.nn.tasks import BaseModel, parse_model
from ultralytics.utils.torch_utils import initialize_weights

from models.anchor.head import AnchorDetect
from models.anchor.layout import layout_of, listed_anchors

SIDE = 64  # pixels of the picture that shows strides and channels: one cell of the coarsest level


class AnchorModel(BaseModel):
    """An anchor-based detector; like ultralytics' DetectionModel it has .model, .yaml, .names, .stride, .nc."""

    end2end = False  # it wants non-maximum suppression

    def __init__(self, yaml: dict[str, Any], nc: int, where: str) -> None:
        """`yaml` lists anchors and is not kept as it is: nc is written into it."""
        super().__init__()
        layout = layout_of(yaml, where)
        self.yaml, self.nc, self.task = yaml | {"nc": nc}, nc, "detect"
        body, save = parse_model(layout.body, ch=3, verbose=False)
        for block in body.modules():
            if isinstance(block, SPPF):
                block.cv1.act = nn.SiLU(inplace=True)  # ultralytics' own has none there
        features = _features(body, layout.sources)
        stride = torch.tensor([SIDE / feature.shape[-1] for feature in features])
        head = AnchorDetect(nc, layout.anchors, [f.shape[1] for f in features], stride, layout.decode)
        head.i, head.f, head.type = len(body), layout.sources, "models.anchor.head.AnchorDetect"
        head.np = sum(p.numel() for p in head.parameters())
        self.model = nn.Sequential(*body, head)
        self.save = sorted({*save, *(source % len(body) for source in layout.sources)})
        self.stride, self.names = stride, {i: str(i) for i in range(nc)}
        initialize_weights(self)

    def set_anchors(self, pixels: Tensor) -> None:
        """Exchange the anchors for others (levels, anchors, 2) in pixels."""
        head = self.model[-1]
        head.anchors.copy_(pixels / head.stride.view(-1, 1, 1))
        self.yaml["anchors"] = listed_anchors(pixels)

    def take_classes(self, rows: list[int | None]) -> list[int | None]:
        """Give the head a class for each of `rows`: that row of today's, or a fresh one; returns what was taken.

        Boxes and objectness stay. A single class is always fresh: YOLOv5's loss never trains its row, whose prior says
        that it is there, so its score is the objectness.
        """
        head = self.model[-1]
        if rows != list(range(head.nc)):
            rows = [None] if len(rows) == 1 else rows
            head.take_classes(rows)
        self.nc = head.nc
        return rows


@torch.no_grad()
def _features(body: nn.Sequential, sources: list[int]) -> list[Tensor]:
    """What the layers `sources` of a body make of a black picture, (1, c, h, w) each."""
    outputs: list[Tensor] = []
    for layer in body.eval():
        f, last = layer.f, outputs[-1] if outputs else torch.zeros(1, 3, SIDE, SIDE)
        x = last if f == -1 else outputs[f] if isinstance(f, int) else [last if j == -1 else outputs[j] for j in f]
        outputs.append(layer(x))
    body.train()
    return [outputs[source] for source in sources]
