"""What knows neither models/ nor data/. Rooms, lowest first; a room imports only those above it:

boxes       the arithmetic of boxes
env         the environment of the libraries, the cache folder, the number of cores; imported first by every script
errors      what ends a script early, and its exit code
files       state, digest and lock of a file
drawing     figures, and boxes on pictures
config      everything a run is told
device      all cores of a machine, and the device that a network runs on
evaluation  detections -> COCO scores
run         one run's folder, console, log and state
schedule    rates from the batch number, and the plan of a run
compare     the experiment: arms, runs, verdict, report
tune        the range test, checks before a long run, search
"""
