"""A split as columns in one memory-mapped file. Rooms, lowest first; a room imports only those above it:

columns   texts as bytes in one array; a dataclass as arrays and back
copies    the same picture more than once, by content
file      the file in the cache folder
state     the files that an index depends on, and what they were like
table     what was read of pictures, as columns
read      every picture's header and label, but for those known already
build     the stored index, opened or made
index     the index that everything else uses
identity  a hash of the content of a dataset
subset    some classes, a fraction of the pictures
folds     one of K folds of training and evaluation pictures
"""
