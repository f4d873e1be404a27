"""WHAT is trained. Only this folder imports ultralytics. Rooms, lowest first; a room imports only those above it:

loss      ultralytics' criterion, in full precision
weights   files -> tensors, and back; nothing in a file runs
anchor    the anchor-based detectors of YOLOv5 and YOLOv3
build     a model yaml -> network
head      what passes to a detector with other classes
detector  detectors from weights on disk; the copy of one that is evaluated
features  how far pictures are from those that a network learnt from
inference  detectors in use: exported files, ensembles, several looks
training  what a training consists of: built, fitted to the device, saved and restored together
"""
