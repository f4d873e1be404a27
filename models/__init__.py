"""WHAT is trained. Only this folder imports ultralytics. Rooms, lowest first; a room imports only those above it:

loss      ultralytics' criterion, in full precision
weights   files -> tensors, and back; nothing in a file runs
anchor    the anchor-based detectors of YOLOv5 and YOLOv3
build     a model yaml -> network
head      what passes to a detector with other classes
decode    how a head's output becomes boxes and scores in evaluation
fold      the copy of a network that is evaluated: the same outputs, faster
detector  detectors from weights on disk, and as they are evaluated
inference  detectors in use: exported files, ensembles, several looks
training  what a training consists of: built, fitted to the device, saved and restored together
"""
