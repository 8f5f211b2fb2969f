# What every config shares: our modules, hooks, logging.
custom_imports = dict(imports=["mmclipdis"], allow_failed_imports=False)
default_scope = "mmseg"
env_cfg = dict(
    cudnn_benchmark=False,  # with varied image sizes it costs more than it gains
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),  # tools/train.py takes gloo where there is no GPU
)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="ExactCheckpointHook", by_epoch=False, interval=2000, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
custom_hooks = [
    dict(type="VocabularyHook"),  # gives the data set"s class names to the model
    dict(type="NonFiniteGuard"),
]
# tools/train.py --tensorboard adds TensorBoard
vis_backends = [dict(type="LocalVisBackend")]
# no name: mmengine keeps visualizers by name, and a second run in a process would take the first's
visualizer = dict(type="VocabularyVisualizer", vis_backends=vis_backends)
log_processor = dict(by_epoch=False)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
tta_model = dict(type="OpenVocabTTAModel")  # tools/test.py --tta
