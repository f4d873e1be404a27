"""One run's folder, console, log and state. Rooms, lowest first; a room imports only those above it:

folder    the folder and run.json
state     what a run goes on from, and how it is written
console   what a run prints
plots     rates, losses and scores as pictures
detection  what detect.py finds: thresholds, drawings, files
log       metrics.csv and TensorBoard
carry     what a longer run takes over from a shorter one
meter     what an epoch adds up to
profile   where the time of the first batches goes
pictures  what was learned from and what was found
"""
