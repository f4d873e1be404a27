"""From a range test of the learning rate to a tuned run. Rooms, lowest first; a room imports only those above it:

options  what tune.py is told beside a run
ramp     rates that rise, losses that fall, and the rates that they suggest
picture  the range test as a picture
search   a search over keys of a hyp, its winner verified
"""
