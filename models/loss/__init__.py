"""ultralytics' loss. Rooms, lowest first; a room imports only those above it:

shared      one normaliser of the loss for the pictures of all ranks
evaluation  the losses of an evaluation, without the dense tables of training
sparse      the assigner of the criterion, on a CPU
detection   the criterion and the decoding of boxes, in full precision
"""
