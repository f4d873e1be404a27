"""Files -> tensors, and back; nothing in a file runs. Rooms, lowest first; a room imports only those above it:

find      names on the command line -> files
unpickle  a checkpoint file read without running anything in it
variant   which variant of its yaml a pickled network is
sections  the sections of a Darknet .cfg, as they are written
cfg       a Darknet .cfg -> the model yaml of the same network
darknet   a Darknet .weights file -> model yaml, class names, tensors
save      a detector as ultralytics' own checkpoint, or an anchor-based one as a plain dictionary
load      a checkpoint file -> architecture, class names, fp32 tensors
"""
