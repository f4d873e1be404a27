"""From a range test of the learning rate to a tuned run. Rooms, lowest first; a room imports only those above it:

options  what tune.py is told beside a run
ramp     rates that rise, losses that fall, and the rates that they suggest
picture  the range test as a picture
lecture  what the steps of a check say
notes    what a check has found so far: check.json
trials   the runs of a check, within a budget
runs     the steps of a check that are made by runs
page     the page of a check
search   a search over keys of a hyp, its winner verified
"""
