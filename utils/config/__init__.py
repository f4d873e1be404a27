"""Everything a run is told. Rooms, lowest first; a room imports only those above it:

kinds    every kind of warm-up and decay, a row each
foreign  files of YOLOv5 and ultralytics: their words, ours
habits   words of YOLOv5's and ultralytics' val, detect and export: ours, or what to do
recipes  the timing rules of this and other trainers, a row each
values   values as they are written
keys     the table of all keys, and every default
schema   the keys of a run together: what can be made
help     every option as a line
words    words of a command line -> values
files    hyp files -> values
options  a command line and hyp files -> Hyp
"""
