# NACLIP with its refiner, which its code has on by default: 10 steps of PAMR on the cosines at the
# size of the photo.
_base_ = "naclip_vitb16.py"
model = dict(refiners=[dict(type="PAMR", steps=10, dilations=(8, 16))])
