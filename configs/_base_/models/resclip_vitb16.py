# ResCLIP's first part (RCS): NACLIP's attention and the mean of the ordinary maps of blocks 5 to 8,
# 2 (1 - l) and 2 l of them; l is that of the benchmark. Otherwise NACLIP's protocol. Its second
# pass (SFR), with constants for each data set, is not here.
_base_ = "naclip_vitb16.py"
model = dict(
    backbone=dict(
        readout=dict(
            _delete_=True,
            attention=dict(kk=1.2, layers=0.8),
            layers=(5, 6, 7, 8),
            neighbours=5.0,
        )
    )
)
