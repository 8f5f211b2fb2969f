# ClearCLIP on your label maps, nothing trained.
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/models/clearclip_vitb16.py",
    "segmentation.py",
]
# A model looks for the classes of the data set. Other words for them, with synonyms of one class:
#   vocabulary=[["road", "street"], "tree", ["car", "van", "truck"], "sky"]
model = dict(decode_head=dict(vocabulary="dataset"))
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
