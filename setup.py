"""Installation of mmclipdis. Ranges here; exact versions for the quick start in constraints.txt."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
#: Read when Python starts; lies beside the package, in site-packages.
STARTUP = "mmclipdis.pth"
#: What mim, mmengine's hub and inferencers look for in the folder ``.mim`` of an installed package.
MIM = ("configs", "tools", "model-index.yml")


def read_version() -> str:
    """Read the version without importing the package, which needs torch."""
    text = (ROOT / "mmclipdis" / "version.py").read_text()
    match = re.search(r'__version__ = "([^"]+)"', text)
    if match is None:
        raise RuntimeError('mmclipdis/version.py has no line __version__ = "..."')
    return match.group(1)


class BuildWithMim(build_py):
    """Adds ``.mim`` and ``mmclipdis.pth`` to what is built.

    A clone has links in ``mmclipdis/.mim``, which an editable installation uses. A wheel cannot
    hold links, and gets copies.
    """

    def run(self) -> None:
        """Build as always, then copy."""
        super().run()
        if self.editable_mode:
            # the folder that becomes site-packages; nothing else reaches an editable installation
            self.copy_file(STARTUP, self.get_finalized_command("install").install_lib)
            return
        self.copy_file(STARTUP, self.build_lib)
        target = Path(self.build_lib, "mmclipdis", ".mim")
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        target.mkdir(parents=True)
        for name in MIM:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "work_dirs", "data")
                shutil.copytree(ROOT / name, target / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, target / name)


class SourceWithLinks(sdist):
    """Keeps the links of ``mmclipdis/.mim``, in place of what they lead to."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Make the tree as always, then add the links."""
        super().make_release_tree(base_dir, files)
        target = Path(base_dir, "mmclipdis", ".mim")
        target.mkdir(parents=True, exist_ok=True)
        for name in MIM:
            (target / name).symlink_to(Path("..", "..", name))


# Neither mmengine nor mmcv, mmsegmentation or mmdet: they exist under two names each (upstream and
# onedl-*), and pip would put one over the other. The extras bring those of upstream.
REQUIRES = [
    "torch>=2.6",
    "torchvision>=0.21",
    "open_clip_torch>=3.0,<4",
    "timm>=1.0.17",
    "click>=8.1",
    "numpy>=1.26",
    "opencv-python>=4.8",
    "packaging",
    "pillow>=10",
    "prettytable",
    "pycocotools>=2.0.7",
    "pyyaml",
    "regex",
    "safetensors>=0.4.3",
    "scipy",
    "tqdm",
]
ENGINE = [
    "mmengine>=0.10.7,<1",
    "setuptools<82",  # mmengine reads "mmseg::..." config names through pkg_resources
]
SEGMENTATION = [
    *ENGINE,
    "mmsegmentation>=1.2.2,<2",
    # mmseg imports these and does not declare them; so does open_clip, which does
    "ftfy",
    "regex",
]
DETECTION = [*ENGINE, "mmdet>=3.3.0,<4", "lvis>=0.5.3,<1"]
#: onnxscript is what torch.onnx writes with; onnxruntime compares the file with the model.
EXPORT = ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"]
#: What make docs builds the site with; latex2mathml draws formulas without a script.
DOCS = [
    "latex2mathml>=3.78",
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.7,<10",
    "mkdocstrings[python]>=1,<2",
]
#: Tokenizers of other encoders than CLIP's: tokenizer.json, and the .model of sentencepiece.
TEXT = ["sentencepiece>=0.2", "tokenizers>=0.20"]
LITE = [*ENGINE, "mmcv-lite>=2.0.0,<2.2.0"]
EXTRAS = {
    "seg": SEGMENTATION,
    "det": DETECTION,
    "lite": LITE,
    "export": EXPORT,
    "text": TEXT,
    "all": sorted({*SEGMENTATION, *DETECTION, *LITE, *TEXT}),
    "web": ["gradio>=6,<7"],
    "docs": DOCS,
    "dev": [
        *DOCS,
        *EXPORT,
        *TEXT,
        "hypothesis",
        "mypy",
        "pytest",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.7",
        "ruff",
        "scikit-learn",
        "selenium>=4.20",  # drives the browser of tests/web
        "tensorboard",
    ],
}

setup(
    name="mmclipdis",
    version=read_version(),
    description="Open-vocabulary segmentation, detection and recognition with CLIP in OpenMMLab",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    packages=find_packages(include=["mmclipdis", "mmclipdis.*"]),
    py_modules=["mmclipdis_command", "mmclipdis_startup"],
    cmdclass={"build_py": BuildWithMim, "sdist": SourceWithLinks},
    package_data={
        "mmclipdis": ["py.typed"],
        "mmclipdis.apis.zoo": ["weights.yml", "weights/*.safetensors"],
        "mmclipdis.clip": ["model_configs/*.json", "model_configs/*.safetensors"],
        "mmclipdis.clip.text": ["class_files/*"],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mmclipdis = mmclipdis_command:command"]},
    zip_safe=False,
)
