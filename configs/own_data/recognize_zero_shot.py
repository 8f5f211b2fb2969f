# CLIP as it is names your photos.
_base_ = [
    "../_base_/mmengine_runtime.py",
    "../_base_/models/clip_recognizer_rn50.py",
    "recognition.py",
]
