# InfoCLIP, ViT-L/14 at 336 px, tested on PC-59. Published: 63.5 mIoU (InfoCLIP, AAAI 2026); compare
# mIoU_present. Not run here.
#   python tools/test.py configs/infoclip/infoclip_vitl14-336_pc59.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pc59.py",
    "../_base_/models/catseg_vitl14-336.py",
]
model = dict(_delete_=True, type="InfoCLIP", segmentor={{_base_.model}})
