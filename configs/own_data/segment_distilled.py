# The student of distill.py on your label maps, nothing else trained; without a checkpoint CLIP
# before it was distilled.
_base_ = ["segment_zero_shot.py"]
model = dict(backbone=dict(type="DeCLIPViT", readout=dict(attention=("qq", "kk"), scale="sqrt")))
