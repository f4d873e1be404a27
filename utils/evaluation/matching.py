"""Which detection found which true box. Pure functions of numpy arrays; boxes are xyxy in pixels."""

import numpy as np


def overlaps(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU (n, m) of boxes found (n, 4) with truth (m, 4), xyxy; for a crowd the part of the found box inside it."""
    lt = np.maximum(found[:, None, :2], truth[None, :, :2])  # (n, m, 2)
    rb = np.minimum(found[:, None, 2:4], truth[None, :, 2:4])  # (n, m, 2)
    inter = (rb - lt).clip(0).prod(-1)  # (n, m)
    area_found = (found[:, 2:4] - found[:, :2]).prod(-1)[:, None]  # (n, 1)
    area_truth = (truth[:, 2:4] - truth[:, :2]).prod(-1)[None]  # (1, m)
    union = np.where(crowd[None], area_found, area_found + area_truth - inter)
    return inter / union.clip(1e-9)


def match(found: np.ndarray, iou: np.ndarray, crowd: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Verdict (n,) on each row of found (n, 6): 1 true, 0 false, -1 ignored for lying in a crowd.

    As COCO: by falling score each detection takes the free true box of its class that it overlaps most; iou (n, m) is 0
    where the classes differ.
    """
    in_crowd = -(iou[:, crowd] >= threshold).any(1).astype(np.int8)  # of those that take no box
    return np.where(take(found, iou * ~crowd, threshold) >= 0, np.int8(1), in_crowd)


def take(found: np.ndarray, iou: np.ndarray, threshold: float) -> np.ndarray:
    """The true box (n,) that each row of found (n, 6) takes, -1 for none; iou (n, m) is 0 where it may take none.

    By falling score each takes the free box that it overlaps most, if by the threshold at least.
    """
    taken, free = np.full(len(found), -1), iou.copy()  # (n,), (n, m); a taken box is set to 0 below
    near = (free >= threshold).any(1)  # (n,) the others cannot take one
    for i in np.argsort(-found[:, 4], kind="stable"):
        if near[i] and free[i].max() >= threshold:
            taken[i] = free[i].argmax()
            free[:, taken[i]] = 0
    return taken


def one_to_one(iou: np.ndarray, threshold: float) -> np.ndarray:
    """One-to-one pairs (p, 2) of row and column of iou (n, m), the largest first, down to the threshold."""
    rows, columns = np.nonzero(iou >= threshold)
    pairs, used_rows, used_columns = [], set(), set()
    for i in np.argsort(-iou[rows, columns], kind="stable"):
        if rows[i] not in used_rows and columns[i] not in used_columns:
            pairs.append((rows[i], columns[i]))
            used_rows.add(rows[i])
            used_columns.add(columns[i])
    return np.array(pairs, dtype=int).reshape(-1, 2)
