"""What a run goes on from, and how it is written. Rooms, lowest first; a room imports only those above it:

due         when it is saved inside an epoch
progress    what changes while a run goes on, in plain values
settings    which settings a run that goes on may have others of
sound       whether a file and the state in it are what they claim to be
seed        the random state of the libraries
checkpoint  last.pt, and how a run goes on from it
stable      what is kept for a longer run
restart     a run after torchrun has restarted its ranks
writer      states written while training goes on
"""
