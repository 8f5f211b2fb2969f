# DCLIP's projectors trained on your photos and their labels; CLIP itself stays as it is.
_base_ = [
    "../_base_/models/dclip_rn50.py",
    "../_base_/schedules/dclip_50e.py",
    "recognition.py",
]
