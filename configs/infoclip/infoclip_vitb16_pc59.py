# InfoCLIP, ViT-B/16, tested on PC-59. Published: 58.1 mIoU (InfoCLIP, AAAI 2026); compare
# mIoU_present. Not run here.
#   python tools/test.py configs/infoclip/infoclip_vitb16_pc59.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pc59.py",
    "../_base_/models/catseg_vitb16.py",
]
model = dict(_delete_=True, type="InfoCLIP", segmentor={{_base_.model}})
