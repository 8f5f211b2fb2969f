# DCLIP's projectors, CLIP RN101, COCO-Stuff 164k, its 91 classes of stuff. Not run here.
# Published as a bar of Figure 6 only, no number: the paper's "Stuff 91", if that is stuff alone.
# Its scripts score all 182 ids; zs3_rn101_coco_stuff164k.py is things and stuff, 171 classes.
# The authors' scripts average an IoU of each image, background ignored (docs/dclip.md); here it is
# the usual mIoU, so expect other numbers.
# A class that is not listed is ignored: all things.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/coco_stuff164k.py",
    "../_base_/models/dclip_zs3_rn101.py",
]
classes = [
    "banner", "blanket", "branch", "bridge", "building-other", "bush", "cabinet", "cage",
    "cardboard", "carpet", "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter",
    "cupboard", "curtain", "desk-stuff", "dirt", "door-stuff", "fence", "floor-marble",
    "floor-other", "floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other",
    "fruit", "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves",
    "light", "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper",
    "pavement", "pillow", "plant-other", "plastic", "platform", "playingfield", "railing",
    "railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea", "shelf",
    "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw",
    "structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable",
    "wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile",
    "wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood",
]  # fmt: skip
stuff = dict(dataset=dict(metainfo=dict(classes=classes), **_base_.zs3_dataset.dataset))
test_pipeline = _base_.zs3_pipeline
val_dataloader = stuff
test_dataloader = stuff
