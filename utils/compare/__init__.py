"""The experiment: arms, runs, verdict, report. Rooms, lowest first; a room imports only those above it:

fingerprint  what a run was made by
launch       runs as processes, several at once
statistics   from paired scores to a verdict
arms         the arms of a comparison, and what differs
record       the result as a type: declared, made by, run, seen when
folder       the folder of a comparison, and comparison.json in it
scores       what a run came to
report       the page, its pictures and its words
conclude     from the runs to what may be said
live         what is said on the console
runs         which runs are to be made, and what each came to
cells        several comparisons as one: data sets, weights, values of a key
"""
