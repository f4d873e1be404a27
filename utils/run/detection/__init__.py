"""What detect.py finds and writes. Rooms, lowest first; a room imports only those above it:

thresholds  from which score on a detection counts, chosen on val
detect      a batch of pictures -> boxes
agreement   whether two detectors find the same
names       the names of files that are written
draw        detections on a picture
video       drawn frames as a video file
write       pictures, label files, crops and predictions.json, written while detection goes on
"""
