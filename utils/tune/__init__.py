"""From a range test of the learning rate to a tuned run. Rooms, lowest first; a room imports only those above it:

options  what tune.py is told beside a run
bench    what steps are tried on, as they see it
lr       the range test of the learning rate
check    seven steps before a long run
search   a search over keys of a hyp, its winner verified
"""
