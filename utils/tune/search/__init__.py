"""A search over keys of a hyp whose winner is verified. Rooms, lowest first; a room imports only those above it:

space   keys, and what may be tried of each
asked   what a search is told
study   the trials on record, in a database
trials  trials as runs of train.py
verify  the best trials against the default on fresh seeds
page    the search on a page
main    the command
"""
