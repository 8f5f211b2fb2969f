# DCLIP: CLIP frozen, two projectors that learn (0.43 M parameters), RN101.
# "alpha" of the paper is mfi.loss_weight, "lambda" mfi.lam. The losses are sums: over the labels of
# a batch (asl), over the entries of the Gram matrix (mfi), so their weights belong to them.
#   axis="class": classes are made unlike each other instead of feature dimensions
#   --cfg-options model.mfi=None: asl alone
clip = dict(
    arch="RN101-quickgelu",
    init_cfg=dict(type="Pretrained", checkpoint="openai"),
)
model = dict(
    type="DCLIP",
    # every token's value, projected; positions resized as DualCoOp does
    encoder=dict(type="CLIPResNet", readout="v", positions="size", **clip),
    text_encoder=dict(type="OpenCLIPTextEncoder", **clip),
    projectors=dict(out_dim=256),
    prompts=("Not a photo of a {}", "A photo of a {}"),
    pooling="separate",
    logit_temperature=20.0,  # of the softmax over places
    logit_scale=5.0,  # 20 x 5: CLIP's own 100
    asl=dict(type="AsymmetricLoss", gamma_pos=1, gamma_neg=2, clip=0.05, loss_weight=0.05),
    mfi=dict(type="MFILoss", axis="feature", rows="all", lam=0.2, loss_weight=7e-5),
)
