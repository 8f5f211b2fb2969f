# DeCLIP of PE-Core ViT-B/16, with DINOv3-B/16 as the teacher of context. Not run here.
# Settings of DeCLIP's OpenAI student. Patches of both are 16 px, so proxies are as large as the
# photos of the student.
_base_ = ["../declip/distill_vitb16_eva_dinov3_coco.py"]
clip = dict(arch="PE-Core-B-16", init_cfg=dict(type="Pretrained", checkpoint="meta"))
model = dict(
    student=dict(type="DeCLIPViT", readout=dict(scale="sqrt"), positions=None, **clip),
    region_classifier=dict(text_encoder=dict(**clip)),
)
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.98), eps=1e-6))
