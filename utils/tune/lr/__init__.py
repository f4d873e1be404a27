"""The range test of the learning rate. Rooms, lowest first; a room imports only those above it:

ramp     rates that rise, losses that fall, and the rates that they suggest
picture  the range test as a picture
main     the command
"""
