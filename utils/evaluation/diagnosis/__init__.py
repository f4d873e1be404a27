"""Why a score is low. Rooms, lowest first; a room imports only those above it:

kinds   what is wrong with each detection, and what mending that would bring
labels  labels that look wrong
counts  hits, misses and false alarms of pictures and classes
page    errors.html: the kinds, the worst pictures, the labels to look at
"""
