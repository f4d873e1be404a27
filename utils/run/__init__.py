"""One run's folder, console, log and state. Rooms, lowest first; a room imports only those above it:

progress    what changes while a run goes on, in plain values
console     what a run prints
folder      the folder and run.json
plots       rates, losses and scores as pictures
ranks       device and ranks
seed        the random state of the libraries
log         metrics.csv and TensorBoard
checkpoint  last.pt, and how a run goes on from it
writer      states written while training goes on
meter       what an epoch adds up to
profile     where the time of the first batches goes
pictures    what was learned from and what was found
"""
