"""Which pictures a split has, and how each is read. Rooms, lowest first; a room imports only those above it:

depth   values of more than 8 bits, and which one is white
share   how many pictures of a part of a split an epoch has
checks  problems of a split as a whole
coco    a COCO json
voc     Pascal VOC folders
yolo    folders and lists with a .txt beside each picture
split   the source of a split, or several as one
"""
