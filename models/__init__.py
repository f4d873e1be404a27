"""WHAT is trained. Only this folder imports ultralytics. Rooms, lowest first; a room imports only those above it:

ema       the average of the weights
freeze    parts that are not trained
loss      the criterion and the decoding of boxes, in full precision
fit       the size of a batch: the largest for a GPU, the smallest for BatchNorm
weights   files -> tensors, and back; nothing in a file runs
build     a model yaml -> network
optim     parameter groups, optimizers, and the one writer of rates
head      what passes to a detector with other classes
detector  detectors from weights on disk; the copy of one that is evaluated
training  everything that is trained, built, saved and restored together
"""
