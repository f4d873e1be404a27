"""WHAT is trained. Only this folder imports ultralytics. Rooms, lowest first; a room imports only those above it:

shared    one normaliser of the loss for the pictures of all ranks
eval_loss the losses of an evaluation, without the dense tables of training
loss      the criterion and the decoding of boxes, in full precision
weights   files -> tensors, and back; nothing in a file runs
build     a model yaml -> network
head      what passes to a detector with other classes
detector  detectors from weights on disk; the copy of one that is evaluated
inference  detectors in use: exported files, ensembles, several looks
training  what a training consists of: built, fitted to the device, saved and restored together
"""
