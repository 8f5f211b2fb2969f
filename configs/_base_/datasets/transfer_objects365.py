# Objects365 v1 val, 365 classes, for detectors that were trained on OV-LVIS: test only.
# mmdet sorts the categories by id, in the data set and in the metric: the official json will do.
_base_ = "./transfer_coco.py"
data_root = "data/Objects365/Obj365_v1/"
ann_file = "annotations/objects365_val.json"
test_dataloader = dict(
    dataset=dict(
        type="Objects365V1Dataset",
        data_root=data_root,
        ann_file=ann_file,
        data_prefix=dict(img="val/"),
    )
)
test_evaluator = dict(ann_file=data_root + ann_file, sort_categories=True)
