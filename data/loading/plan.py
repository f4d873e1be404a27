"""The pictures of a run, counted for its plan, and what would be refused of its data; no picture is read."""

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.folds import count_training
from data.index.subset import absent_classes, class_id
from data.loading.augment import PixelTransforms
from data.sources.split import open_source
from utils.config.schema import Hyp


def count_for(hyp: Hyp, download: bool = False) -> tuple[int, bool, int]:
    """Training pictures of the data of a run, whether that is exact, and classes; UserError as training has it."""
    config = load_dataset_yaml(hyp.data, download)
    single_cls = hyp.single_cls and hyp.classes is None
    counted = count_training(hyp, download)
    if hyp.fold is None or config.val is not None:
        open_source(config, "val", single_cls)
    wanted = {class_id(word, config.names) for word in hyp.classes or ()}
    if hyp.val_also is not None:
        also = load_dataset_yaml(hyp.val_also, download)
        open_source(also, "val", hyp.single_cls)
        if not hyp.single_cls:
            absent_classes(hyp, also.names, [config.names[k] for k in wanted] or config.names)
    if hyp.albumentations:
        PixelTransforms(hyp.albumentations)
    return *counted, 1 if hyp.single_cls else len(wanted or config.names)
