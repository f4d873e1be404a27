"""A Darknet .cfg -> the model yaml of the same network, layer by layer; nothing in it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.weights.sections import Section, sections_of
from utils.errors import UserError

ACTIVATIONS = {"leaky": "LeakyReLU", "relu": "ReLU", "mish": "Mish", "swish": "SiLU", "linear": "Identity"}
USUAL = {  # options that would make another layer than is built here, and the value at which they do not
    "groups": 1, "dilation": 1, "binary": 0, "xnor": 0, "antialiasing": 0, "stride_x": None, "stride_y": None,
    "scale_x_y": 1, "new_coords": 0, "reverse": 0, "weights_type": "none", "maxpool_depth": 0,
}  # fmt: skip


@dataclass
class Network:
    """What a cfg describes."""

    yaml: dict[str, Any]
    activations: list[str]  # of each convolution that has BatchNorm, in the order of the file
    imgsz: int | None  # pixels of the pictures that it was trained on, where they are square


class Cfg:
    """The layers of a file, turned one after the other into rows of a yaml."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.activations = path, [], []
        self.channels: list[int] = []  # of each row
        self.stride: list[int] = []  # of each row
        self.row_of: list[int | None] = []  # for each layer of the file the row with its output; None: it has none
        self.levels: list[tuple[int, int, list[float]]] = []  # stride, row that is looked at, anchors w, h, w, h, ...
        self.nc: int | None = None
        self.output: tuple[int, int] | None = None  # filters of a convolution before [yolo], row that it looks at

    def wrong(self, section: Section, what: str) -> UserError:
        """The error that a layer cannot be built."""
        return UserError(f"{self.path}, line {section.line}, [{section.kind}]: {what}. Only YOLOv3's layers are read.")

    def number(self, section: Section, key: str, default: int | None = None) -> int:
        """An option that is a whole number."""
        text = section.options.get(key, default)
        try:
            return int(text)
        except (TypeError, ValueError):
            said = "is missing" if text is None else f"is '{text}', not a whole number"
            raise self.wrong(section, f"{key} {said}") from None

    def numbers(self, section: Section, key: str, kind: type = int) -> list[Any]:
        """An option that lists numbers."""
        try:
            return [kind(word) for word in section.options.get(key, "").split(",") if word.strip()]
        except ValueError:
            raise self.wrong(section, f"{key} is '{section.options[key]}', no list of numbers") from None

    def place(self, section: Section, layer: int) -> int:
        """The row with the output of a layer, counted from here where negative."""
        layer = len(self.row_of) + layer if layer < 0 else layer
        if not 0 <= layer < len(self.row_of) or self.row_of[layer] is None:
            raise self.wrong(section, f"it takes what layer {layer} puts out, which no layer before it does")
        return self.row_of[layer]

    def add(self, source: int | list[int], name: str, args: list[Any], channels: int, stride: float) -> None:
        """A row."""
        self.rows.append([source, 1, name, args])
        self.channels.append(channels)
        self.stride.append(int(stride))

    def here(self, section: Section) -> tuple[int, int, int]:
        """The row before, its channels and its stride; a picture's for the first layer."""
        if not self.row_of:
            return -1, 3, 1
        row = self.place(section, -1)
        return row, self.channels[row], self.stride[row]

    def convolutional(self, section: Section) -> None:
        filters, size, stride = (self.number(section, key, 1) for key in ("filters", "size", "stride"))
        padding = size // 2 if self.number(section, "pad", 0) else self.number(section, "padding", 0)
        activation = section.options.get("activation", "logistic")
        row, _, before = self.here(section)
        if not self.number(section, "batch_normalize", 0):
            if (size, stride, activation) != (1, 1, "linear"):
                raise self.wrong(section, "it has no batch_normalize, which only the 1x1 before [yolo] may lack")
            self.output = filters, row
            self.row_of.append(None)
            return
        if activation not in ACTIVATIONS:
            raise self.wrong(section, f"activation {activation} is none of {', '.join(ACTIVATIONS)}")
        if filters % 8 or filters < 1:
            raise self.wrong(section, f"filters {filters} is not a multiple of 8")
        self.add(row, "Conv", [filters, size, stride, padding], filters, before * stride)
        self.activations.append(ACTIVATIONS[activation])
        self.row_of.append(len(self.rows) - 1)

    def shortcut(self, section: Section) -> None:
        """Join 1x1, 3x3 and the sum with what came before them into one block."""
        last = len(self.rows) - 1
        source = self.place(section, self.number(section, "from"))
        shape = [(name, *args) for _, _, name, args in self.rows[-2:]]
        c = self.channels[-1]
        linear = section.options.get("activation", "linear") == "linear"
        block = shape == [("Conv", c // 2, 1, 1, 0), ("Conv", c, 3, 1, 1)] and self.rows[last][0] == last - 1
        if not (block and linear and self.rows[-2][0] == source and self.channels[source] == c):
            raise self.wrong(section, "it does not add a block of 1x1, half as wide, and 3x3 to what goes into it")
        if self.row_of[-2:] != [last - 1, last]:
            raise self.wrong(section, "the two layers before it are not the block")
        for parts in (self.rows, self.channels, self.stride):
            del parts[-2:]
        self.row_of[-2:] = [None, None]
        self.add(source, "Bottleneck", [c], c, self.stride[source])
        self.row_of.append(len(self.rows) - 1)

    def route(self, section: Section) -> None:
        sources = [self.place(section, layer) for layer in self.numbers(section, "layers")]
        if not sources:
            raise self.wrong(section, "layers is missing")
        if len({self.stride[row] for row in sources}) > 1:
            raise self.wrong(section, "the layers that it joins have different sizes")
        if len(sources) > 1:
            channels = sum(self.channels[row] for row in sources)
            self.add(sources, "Concat", [1], channels, self.stride[sources[0]])
        self.row_of.append(sources[0] if len(sources) == 1 else len(self.rows) - 1)

    def maxpool(self, section: Section) -> None:
        stride = self.number(section, "stride", 1)
        size = self.number(section, "size", stride)
        row, channels, before = self.here(section)
        if self.number(section, "padding", size - 1) != size - 1 or (size % 2 == 0 and (size, stride) != (2, 2)):
            if (size, stride, "padding" in section.options) != (2, 1, False):
                raise self.wrong(section, f"size {size} and stride {stride} with that padding")
            self.add(row, "nn.ReplicationPad2d", [[0, 1, 0, 1]], channels, before)  # the maximum of what is there
            row = len(self.rows) - 1
        self.add(row, "nn.MaxPool2d", [size, stride, size // 2 if size % 2 else 0], channels, before * stride)
        self.row_of.append(len(self.rows) - 1)

    def upsample(self, section: Section) -> None:
        row, channels, before = self.here(section)
        if self.number(section, "stride", 2) != 2 or before % 2:
            raise self.wrong(section, "stride is not 2")
        self.add(row, "nn.Upsample", [None, 2, "nearest"], channels, before // 2)
        self.row_of.append(len(self.rows) - 1)

    def yolo(self, section: Section) -> None:
        nc, anchors = self.number(section, "classes", 20), self.numbers(section, "anchors", float)
        mask = self.numbers(section, "mask") or list(range(len(anchors) // 2))
        if self.output is None or self.output[0] != len(mask) * (5 + nc) or not mask:
            raise self.wrong(
                section, f"a 1x1 of {len(mask)} anchors x (5 + {nc} classes) filters has to stand before it"
            )
        if not all(0 <= i < len(anchors) // 2 for i in mask) or self.nc not in (None, nc):
            raise self.wrong(section, "mask names an anchor that is not listed, or classes differs between levels")
        (_, row), self.output, self.nc = self.output, None, nc
        self.levels.append((self.stride[row], row, [v for i in mask for v in anchors[2 * i : 2 * i + 2]]))
        self.row_of.append(None)


def read_cfg(path: Path) -> Network:
    """The network of a .cfg as a model yaml; UserError naming the line that cannot be built."""
    net, *layers = sections_of(path)
    cfg = Cfg(path)
    if net.kind not in ("net", "network") or not layers:
        raise UserError(f"{path} is no Darknet cfg: [net] has to come first, then layers. Name another file.")
    if cfg.number(net, "channels", 3) != 3:
        raise cfg.wrong(net, "channels is not 3")
    for section in layers:
        build = BUILD.get(section.kind)
        if build is None:
            raise cfg.wrong(section, f"this layer is none of {', '.join(BUILD)}")
        for key, usual in USUAL.items():
            if key in section.options and section.options[key] not in (str(usual), f"{usual}.0"):
                raise cfg.wrong(section, f"{key}={section.options[key]} is not built here")
        if cfg.output and section.kind != "yolo":
            raise cfg.wrong(section, "the convolution before it has no batch_normalize, so [yolo] has to follow")
        build(cfg, section)
    if not cfg.levels or cfg.output:
        raise UserError(f"{path} has no [yolo] at its end, so it describes no detector. Name the cfg of a detector.")
    width, height = (cfg.number(net, key, 416) for key in ("width", "height"))
    square = width == height and width % 32 == 0 and width > 0
    return Network(_yaml(cfg), cfg.activations, width if square else None)


BUILD = {
    "convolutional": Cfg.convolutional, "shortcut": Cfg.shortcut, "route": Cfg.route, "maxpool": Cfg.maxpool,
    "upsample": Cfg.upsample, "yolo": Cfg.yolo,
}  # fmt: skip


def _yaml(cfg: Cfg) -> dict[str, Any]:
    """The rows as a yaml, the finest level first; up to the last residual block, or pooling, it is the backbone."""
    levels = sorted(cfg.levels)
    if len({len(anchors) for _, _, anchors in levels}) > 1:
        raise UserError(f"{cfg.path}: its [yolo] layers have different numbers of anchors. Only equal ones are read.")
    for i, row in enumerate(cfg.rows):  # by number only where it is not the row before: others need not be kept
        row[0] = (
            [-1 if j == i - 1 else j for j in row[0]] if isinstance(row[0], list) else -1 if row[0] == i - 1 else row[0]
        )
    names = [row[2] for row in cfg.rows]
    mark = "Bottleneck" if "Bottleneck" in names else "nn.MaxPool2d"
    split = max((i + 1 for i, name in enumerate(names) if name == mark), default=1)
    detect = [[row for _, row, _ in levels], 1, "Detect", ["nc", "anchors"]]
    return {
        "nc": cfg.nc, "decode": "darknet", "anchors": [anchors for _, _, anchors in levels],
        "backbone": cfg.rows[:split], "head": [*cfg.rows[split:], detect],
    }  # fmt: skip
