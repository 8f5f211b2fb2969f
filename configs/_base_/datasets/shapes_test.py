# ShapeScenes for methods that train nothing. mmengine's Runner takes either all of
# train_dataloader, train_cfg and optim_wrapper, or none.
_base_ = "shapes.py"
train_dataloader = None
