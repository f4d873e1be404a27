"""What knows neither models/ nor data/. Rooms, lowest first; a room imports only those above it:

boxes       the arithmetic of boxes
env         the environment of the libraries, the cache folder, the number of cores; imported first by every script
errors      what ends a script early, and its exit code
files       state, digest and lock of a file
drawing     figures, and boxes on pictures
parallel    jobs by all cores
config      everything a run is told
device      between the host and the device that a network runs on
evaluation  detections -> COCO scores
run         one run's folder, console, log and state
schedule    rates from the batch number, and the plan of a run
compare     the experiment: arms, runs, verdict, report
"""
