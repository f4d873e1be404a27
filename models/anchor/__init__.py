"""The anchor-based detectors of YOLOv5 and YOLOv3, over ultralytics' blocks. Rooms, lowest first:

layout   a model yaml as those projects write it -> one that ultralytics' parser reads, and the anchors
head     boxes relative to anchors, objectness, classes
network  a model yaml -> network
anchors  do they suit the boxes, and which would suit them better
match    which anchors of which cells are to find which box
loss     YOLOv5's loss
"""
