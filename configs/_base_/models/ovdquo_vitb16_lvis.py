# OV-DQUO on CLIP ViT-B/16 for OV-LVIS: 100 classes an iteration, 300 detections, a larger factor.
_base_ = "./ovdquo_vitb16.py"
model = dict(max_classes=100, test_cfg=dict(target_class_factor=8.0, max_per_img=300))
