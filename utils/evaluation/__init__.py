"""Detections -> COCO scores. Rooms, lowest first; a room imports only those above it:

matching  which detection found which true box
nms       a detector's raw output -> boxes
truth     the boxes that detections are scored against
losses    the losses of an evaluation
matches   which detections of all pictures are hits, at ten thresholds at once
bootstrap scores of pictures drawn with replacement, and their 95 % interval
coco      the numbers of pycocotools
metrics   all scores of a set of detections
evaluate  one pass of a detector over a loader
output    tables, metrics.json, predictions.json, label files
diagnosis why a score is low
plots     curves and the confusion matrix
"""
