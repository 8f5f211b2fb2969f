# VOC 2007 test, 20 classes, for detectors that were trained on OV-LVIS: test only.
# pascal_voc/mAP: AP at IoU 0.5 by 11 points, as VOC 2007 did.
_base_ = "./transfer_coco.py"
data_root = "data/VOCdevkit/"
# Its names as words, for the model: "dining table" for "diningtable".
# fmt: off
vocabulary = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv monitor",
)
# fmt: on
test_dataloader = dict(
    dataset=dict(
        type="VOCDataset",
        data_root=data_root,
        ann_file="VOC2007/ImageSets/Main/test.txt",
        data_prefix=dict(_delete_=True, sub_data_root="VOC2007/"),
    )
)
test_evaluator = dict(_delete_=True, type="VOCMetric", metric="mAP", eval_mode="11points")
