"""Several detectors, or several looks at a picture, as one. Rooms, lowest first; a room imports only those above it:

common    output of any head in one form
ensemble  several detectors: their boxes suppressed together, or fused
tta       a detector that looks at a picture flipped and at other scales
average   the mean of several checkpoints, its BatchNorm statistics estimated again
open      weights of a command line -> one detector
"""
