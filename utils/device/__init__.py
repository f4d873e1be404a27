"""All cores of a machine, and the device of a network. Rooms, lowest first; a room imports only those above it:

parallel jobs by all cores
ranks    device and ranks: one process, or as many as torchrun started
together what several ranks do together
streams  time without a wait, a second stream, results that are taken up later
images   pictures as a network wants them
"""
