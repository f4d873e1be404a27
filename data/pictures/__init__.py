"""Decoded pictures: on demand, in memory, on disk. Rooms, lowest first; a room imports only those above it:

letterbox   a picture scaled into a shape, and the way back
shared      arrays in memory that processes share
room        how much decoded pictures may take
decode      a picture file -> BGR array
packed      pictures one after the other in an array of bytes
cache_file  the file of decoded pictures
cache       pictures at training size, from wherever they are
"""
