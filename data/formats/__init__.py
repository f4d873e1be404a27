"""A file on disk -> rows of boxes, or a picture's size. Rooms, lowest first; a room imports only those above it:

deep        the values of a picture with more than 8 bits a channel
header      a picture's size as seen, or why it cannot be used
rows        the boxes of one picture, and what is wrong with them
text        bytes -> text, whatever wrote it
coco        a COCO json -> its pictures, annotations, categories
find        the pictures of a split, and where their labels lie
voc         a Pascal VOC xml -> rows
yolo_row    one row of a YOLO label file
coco_rows   the annotations of one picture of a COCO json -> rows
voc_folder  where the pictures and xmls of a VOC dataset lie
yolo        a YOLO label file -> rows
"""
