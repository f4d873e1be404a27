"""Pictures to detect on, wherever they come from. Rooms, lowest first; a room imports only those above it:

inputs  what --source means: pictures, videos, a camera
batch   frames put together for a forward pass
stills  picture files, decoded ahead by threads
video   frames of a video file or a camera, decoded ahead
"""
