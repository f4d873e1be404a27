"""Sample = f(seed, epoch, position), and batches of samples. Rooms, lowest first; a room imports only those above it:

augment     colour, flips, blending, pixel transforms
mosaic      four pictures -> one
plan        the pictures of a run counted, and its data checked, none of them read
multiscale  training at varying sizes
order       which picture stands at which position
blocks      pictures decoded once for all workers
dataset     one sample
device      on the way to a device, and on it
workers     batches by several processes
loader      batches: which samples, by how many processes
again       a batch made once more, with the files that it is made of
"""
