# OV-LVIS at 896 x 896, F-ViT L/14: ov_lvis.py with its two sizes changed.
_base_ = "./ov_lvis.py"
image_size = (896, 896)
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = image_size  # of RandomResize
train_pipeline[3].crop_size = image_size  # of RandomCrop
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = image_size  # of Resize
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
