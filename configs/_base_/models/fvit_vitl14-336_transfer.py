# F-ViT L/14-336 of OV-LVIS on another data set: test only. Its checkpoint is that of OV-LVIS; here
# are no masks, no class is novel (alpha == beta), and the learned temperature is replaced by 50.
_base_ = "./fvit_vitl14-336_lvis.py"
model = dict(
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
    test_cfg=dict(rcnn=dict(alpha=0.2, beta=0.2, vlm_temperature=120.0, detect_temperature=50.0)),
)
