"""Which pictures a split has, and how each is read. Rooms, lowest first; a room imports only those above it:

checks  problems of a split as a whole
coco    a COCO json
voc     Pascal VOC folders
yolo    folders and lists with a .txt beside each picture
split   the source of a split, or several as one
"""
