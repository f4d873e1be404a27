"""What a training consists of beside the network. Rooms, lowest first; a room imports only those above it:

ema     the average of the weights
freeze  parts that are not trained
graph   forward and backward as CUDA graphs
fit     the size of a batch: the largest for a GPU, the smallest for BatchNorm
optim   parameter groups, optimizers, and the one writer of rates
join    the gradients of several ranks as one
kept    checkpoints beside best.pt, and their ensemble
state   everything that is trained, built, saved and restored together
extend  the state that a run goes on from
run     what stays the same while a run goes on, its folder and its states
between  between two batches: saved and stopped by all ranks at once
steps   optimizer steps outside a run
"""
