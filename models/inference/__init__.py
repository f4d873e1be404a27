"""Detectors in use. Rooms, lowest first; a room imports only those above it:

classes   the classes of a detector as those of the data
features  how far pictures are from those that a network learnt from
export    ONNX, TorchScript, OpenVINO: detectors as files for other programs, and from them
combined  several detectors, or several looks at a picture, as one
"""
