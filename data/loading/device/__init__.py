"""Batches on their way to a device, and on it. Rooms, lowest first; a room imports only those above it:

transfer  host memory that a GPU copies from
colour    the colour change of training, of whole batches on the device
prepare   training batches -> what a network is given
"""
