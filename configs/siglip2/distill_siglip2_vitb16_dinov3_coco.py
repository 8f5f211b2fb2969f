# DeCLIP of SigLIP 2 ViT-B/16, with DINOv3-B/16 as the teacher of context. Not run here.
# Of its sizes that of 224 px, which the crops of the content teacher have, as those of CLIP do;
# settings of DeCLIP's OpenAI student. Patches of both are 16 px, so proxies are as large as the
# photos of the student. tokenizer.json is of google/siglip2-base-patch16-224.
_base_ = ["../declip/distill_vitb16_eva_dinov3_coco.py"]
clip = dict(arch="ViT-B-16-SigLIP2", init_cfg=dict(type="Pretrained", checkpoint="webli"))
model = dict(
    student=dict(type="DeCLIPViT", readout=dict(scale="sqrt"), positions=None, **clip),
    region_classifier=dict(
        text_encoder=dict(**clip, tokenizer="checkpoints/siglip2/tokenizer.json")
    ),
)
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.98), eps=1e-6))
