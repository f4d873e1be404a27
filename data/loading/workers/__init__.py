"""Batches by several processes. Rooms, lowest first; a room imports only those above it:

shares     which positions of an epoch make up a batch, and which of them are whose
slots      evaluation's batches in shared memory
batch      samples -> a batch of them
ring       training's batches through shared buffers
processes  worker processes of torch's DataLoader
"""
