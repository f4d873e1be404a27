"""Files of YOLOv5 and ultralytics: what their keys are called here, and which mean nothing here. PURE."""

from typing import Any

YOLOV5_MARKS = ("obj", "anchor_t", "iou_t")  # keys that only a hyp file of YOLOv5 has
ULTRALYTICS_MARKS = ("cos_lr", "kobj", "overlap_mask", "copy_paste_mode", "erasing", "auto_augment")
# old spelling -> today's name; a tuple also gives the value that it stands for
OLD_SPELLINGS: dict[str, str | tuple[str, Any]] = {
    "img": "imgsz", "img_size": "imgsz", "batch_size": "batch", "model": "weights", "cfg": "weights",
    "conf_thres": "conf", "iou_thres": "iou", "agnostic": "agnostic_nms", "task": "split", "lr": "lr0",
    "cos_lr": ("decay", "cosine"), "linear_lr": ("decay", "linear"), "adam": ("optimizer", "adam"),
    "cache_images": ("cache", "ram"), "half": ("amp", "fp16"), "image_weights": ("balance", "1"),
}  # fmt: skip
WHEN_FALSE = {  # what their `false` stands for
    "cos_lr": ("decay", "linear"), "linear_lr": ("decay", "cosine"), "image_weights": ("balance", "0"),
}  # fmt: skip
INVERTED = {"val": "noval", "plots": "noplots"}  # ultralytics says val=False where YOLOv5 says --noval
OLD_VALUES = {
    ("cache", "true"): "ram", ("cache", "false"): "off", ("amp", "true"): "auto", ("amp", "false"): "off",
    ("multi_scale", "true"): "0.5", ("multi_scale", "false"): "0", ("save_period", "-1"): "0",
    ("resume", "true"): "latest", ("cache", "none"): "off", ("amp", "fp32"): "off",
    ("channels_last", "true"): "on", ("channels_last", "false"): "off",
}  # fmt: skip
FOREIGN_KEYS = {
    "obj_pw", "anchors", "copy_paste", "copy_paste_mode", "pose", "kobj",
    "cutmix", "bgr", "erasing", "auto_augment", "crop_fraction", "rect", "save",
    "verbose", "profile", "overlap_mask", "mask_ratio", "dropout", "mode", "nms", "dnn", "pretrained",
    "compile", "angle", "rle", "noautoanchor", "evolve", "bucket", "quad", "nosave",
    "local_rank", "entity", "upload_dataset", "bbox_interval", "artifact_alias", "half", "plots", "val",
    "giou", "theta", "mixup_prob", "paste_in", "save_dir", "hide_labels", "hide_conf", "evolve_population",
    "resume_evolve", "nc", "notest", "global_rank", "world_size", "total_batch_size", "single_class", "log_imgs",
    "log_artifacts", "ndjson_console", "ndjson_file", "seg", "mosaic9", "loss_ota", "v5_metric",
    "cls_remap", "dis", "distill_model", "dlog", "dgrad", "dlam", "quantize", "save_json", "save_hybrid", "source",
    "vid_stride", "stream_buffer", "visualize", "augment", "retina_masks", "embed", "show", "save_frames",
    "save_txt", "save_conf", "save_crop", "show_labels", "show_conf", "show_boxes", "line_width", "format", "keras",
    "optimize", "int8", "dynamic", "simplify", "opset", "workspace", "tracker", "cfg", "task", "split",
    "v5loader", "boxes", "line_thickness", "min_memory",
}  # fmt: skip
# of theirs, at this value the same as left out; another one would have changed the result
NEUTRAL: dict[str, Any] = {
    "obj_pw": 1, "copy_paste": 0, "cutmix": 0, "bgr": 0, "paste_in": 0, "dropout": 0,
    "rect": False, "quad": False, "mosaic9": 0, "half": False, "quantize": None,
}  # fmt: skip
# words of ultralytics' command line that say what a script does anyway
SAME = {("task", "detect"), ("mode", "train"), ("mode", "val"), ("pretrained", "true")}
# words of other trainers for what a key of ours says, to be suggested
MEANT = {
    "learning_rate": "lr0", "base_lr": "lr0", "initial_lr": "lr0", "max_lr": "lr0", "min_learning_rate": "min_lr",
    "final_lr": "min_lr", "image_size": "imgsz", "img_sz": "imgsz", "input_size": "imgsz", "resolution": "imgsz",
    "size": "imgsz", "num_workers": "workers", "dataloader_num_workers": "workers", "nw": "workers",
    "num_epochs": "epochs", "num_train_epochs": "epochs", "max_epochs": "epochs", "n_epochs": "epochs",
    "train_batch_size": "batch", "per_device_train_batch_size": "batch", "bs": "batch", "dataset": "data",
    "dataset_dir": "data", "data_yaml": "data", "data_path": "data", "checkpoint": "weights", "ckpt": "weights",
    "pretrained_weights": "weights", "model_name_or_path": "weights", "output_dir": "project", "run_name": "name",
    "exp_name": "name", "wd": "weight_decay", "beta1": "momentum", "optim": "optimizer", "lr_scheduler": "decay",
    "lr_scheduler_type": "decay", "scheduler": "decay", "warmup_steps": "warmup_iters",
    "warmup_iterations": "warmup_iters", "num_warmup_steps": "warmup_iters", "warmup_ratio": "warmup_epochs",
    "warmup_factor": "warmup_start", "warmup_lr": "warmup_start", "max_grad_norm": "clip_norm",
    "grad_clip": "clip_norm", "gradient_clip_val": "clip_norm", "clip_grad_norm": "clip_norm",
    "gradient_accumulation_steps": "nbs", "accumulate": "nbs", "early_stopping": "patience",
    "early_stopping_patience": "patience", "mixed_precision": "amp", "precision": "amp", "fp16": "amp", "bf16": "amp",
    "random_seed": "seed", "gpu": "device", "gpus": "device", "devices": "device", "ema": "ema_decay",
    "confidence": "conf", "conf_threshold": "conf", "score_thr": "conf", "nms_threshold": "iou",
    "freeze_backbone": "freeze", "freeze_layers": "freeze", "num_seeds": "seeds",
}  # fmt: skip
COMMAND_KEYS = {"hyp", "resume", "exist_ok"}  # of theirs that belong to one start of the program


def origin(content: dict[Any, Any]) -> str:
    """Recipe of the project that a file comes from: yolov5, ultralytics, or '' for ours."""
    if "gains" in content:  # only ours
        return ""
    if any(mark in content for mark in (*YOLOV5_MARKS, "noautoanchor")):
        return "yolov5"
    return "ultralytics" if any(mark in content for mark in ULTRALYTICS_MARKS) else ""


def adapt(
    content: dict[Any, Any], project: str, nullable: set[str], repeats: bool = False
) -> tuple[dict[str, Any], list[str], list[str]]:
    """A file of `project` without what means nothing here -> the rest, unused keys, notes.

    nullable: our keys for which null is a value; for others it says 'the default'. repeats: under a recipe that has
    `optimizer: auto`.
    """
    kept, unused, notes, ignored = {}, [], [], []
    for word, value in ((str(word), value) for word, value in content.items()):
        known = word in OLD_SPELLINGS or word in INVERTED
        theirs = word in {"task", "split", "half"} or (word == "channels_last" and project)  # not as theirs has it
        if word in COMMAND_KEYS or theirs or (word in FOREIGN_KEYS and not known):
            counts = word != "half" and word in NEUTRAL and (value or None) != (NEUTRAL[word] or None)
            (ignored if counts else unused).append(f"{word}: {value}" if counts else word)
        elif word == "cls_pw" and project == "yolov5":
            (unused if value == 1 else ignored).append(word)  # theirs is the weight of positives in the class loss
        elif value in ("", None) and (word in OLD_SPELLINGS or word not in nullable):
            continue  # theirs for 'the default'
        elif word == "optimizer" and str(value).lower() == "auto" and not repeats:
            why = "none is chosen behind your back, and sgd is the default (recipe: ultralytics has its rule)"
            notes.append(f"optimizer: auto is not used: {why}")
        elif word == "freeze" and isinstance(value, list) and all(isinstance(v, int) for v in value):
            one = project == "yolov5" and len(value) == 1  # theirs: a single number is how many, several are which
            kept[word] = (value[0] or None) if one else [f"model.{v}" for v in value]
        else:
            kept[word] = value
    notes += [f"would change the result there, and does nothing here: {', '.join(ignored)}"] if ignored else []
    return kept, unused, notes
