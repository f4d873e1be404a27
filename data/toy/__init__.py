"""Two small drawn worlds, for trying things out. Rooms, lowest first; a room imports only those above it:

shapes  outlines and textures
draw    the datasets
demo    a few pictures for models/demo.pt
"""
