# DeCLIP on OpenAI's CLIP ViT-B/16: attention always scaled, unit-norm tokens, and Adam's betas and
# eps of the released code for models whose name contains "vit".
# Published (DeCLIP, CVPR 2025, Table 12): mAcc things 65.0, stuff 38.8; mIoU Context59 36.2, ADE
# 18.6 (EVA: 72.2, 51.3; 38.7, 21.8). Not run here.
_base_ = ["distill_vitb16_eva_dinov2_coco.py"]
clip = dict(arch="ViT-B-16-quickgelu", init_cfg=dict(type="Pretrained", checkpoint="openai"))
model = dict(
    student=dict(type="DeCLIPViT", readout=dict(scale="sqrt"), **clip),
    region_classifier=dict(text_encoder=dict(**clip)),
)
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.98), eps=1e-6))
