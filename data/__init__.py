"""WHAT it is trained on. Rooms, lowest first; a room imports only those above it:

formats     a file on disk -> rows of boxes, or a picture's size
toy         the two drawn worlds and their yamls
definition  a dataset yaml -> paths and class names, every fault named
sources     which pictures a split has, and how each is read
index       a split as columns in one memory-mapped file
pictures    decoded pictures: on demand, in memory, on disk
frames      pictures to detect on: files, videos, cameras
loading     sample = f(seed, epoch, position), and batches of samples
scored      the evaluation pictures of a run, and a second set
report      what a dataset consists of (python -m data.index)
"""
