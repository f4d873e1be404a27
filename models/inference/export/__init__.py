"""Detectors as files for other programs, and from them. Rooms, lowest first; a room imports only those above it:

extra     libraries that only some use, named when they are missing
metadata  what travels in a file beside the network
plain     the network as one function of pictures, with suppression inside where it is wanted
write     ONNX, TorchScript, OpenVINO
read      an exported file as a detector
"""
