# InfoCLIP, ViT-B/16, tested on PAS-20. Published: 95.5 mIoU (InfoCLIP, AAAI 2026); compare
# mIoU_present. Not run here.
#   python tools/test.py configs/infoclip/infoclip_vitb16_pas20.py CHECKPOINT
_base_ = [
    "../_base_/default_runtime.py",
    "../_base_/datasets/catseg_pas20.py",
    "../_base_/models/catseg_vitb16.py",
]
model = dict(_delete_=True, type="InfoCLIP", segmentor={{_base_.model}})
