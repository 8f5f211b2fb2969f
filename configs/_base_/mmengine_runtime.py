# As default_runtime.py, for what needs mmengine and mmcv only (no mmseg): distillation, regions.
custom_imports = dict(imports=["mmclipdis"], allow_failed_imports=False)
default_scope = "mmengine"
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),  # the tools take gloo where there is no GPU
)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="ExactCheckpointHook", by_epoch=False, interval=2000, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
custom_hooks = [
    dict(type="VocabularyHook"),  # gives the data set's class names to the model
    dict(type="NonFiniteGuard"),
]
log_processor = dict(by_epoch=False)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
