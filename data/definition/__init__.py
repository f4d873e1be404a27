"""A dataset yaml -> paths and class names, every fault named. Rooms, lowest first; a room imports only those above it:

darknet       a .data file of Darknet -> what a yaml would say
download      a dataset's archive, where the user asked for it
names         the names of the classes
places        paths of a yaml -> paths of this machine
safe_yaml     a yaml from anywhere -> plain values
config        what a yaml says, as a value
listed        other data sets that a split names
dataset_yaml  the whole definition
"""
