# As mmengine_runtime.py, for detectors: tools/test.py --show-dir paints their boxes.
_base_ = "./mmengine_runtime.py"
default_scope = "mmdet"
default_hooks = dict(visualization=dict(type="DetVisualizationHook"))
vis_backends = [dict(type="LocalVisBackend")]
# no name: mmengine keeps visualizers by name, and a second run in a process would take the first's
visualizer = dict(type="DetectionVisualizer", vis_backends=vis_backends)
