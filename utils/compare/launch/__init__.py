"""Runs as processes, several at once. Rooms, lowest first; a room imports only those above it:

local    on this machine, as many at once as there are slots
cluster  on the machines of a Ray cluster
"""
