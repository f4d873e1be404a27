"""Everything a run is told. Rooms, lowest first; a room imports only those above it:

kinds    every kind of warm-up and decay, a row each
foreign  files of YOLOv5 and ultralytics: their words, ours
recipes  the timing rules of this and other trainers, a row each
schema   the one schema, and every default
options  a command line and hyp files -> Hyp
"""
