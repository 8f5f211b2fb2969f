"""Installation of mmclipdis. Ranges here; exact versions for the quick start in constraints.txt."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Read the version without importing the package, which needs torch."""
    text = (ROOT / "mmclipdis" / "version.py").read_text()
    match = re.search(r'__version__ = "([^"]+)"', text)
    if match is None:
        raise RuntimeError('mmclipdis/version.py has no line __version__ = "..."')
    return match.group(1)


REQUIRES = [
    "torch>=2.6",
    "torchvision>=0.21",
    "mmengine>=0.10.7,<1",
    "mmsegmentation>=1.2.2,<2",
    "mmdet>=3.3.0,<4",
    "lvis>=0.5.3,<1",
    "open_clip_torch>=3.0,<4",
    "timm>=1.0.17",
    "numpy>=1.26",
    "opencv-python>=4.8",
    "pillow>=10",
    "pycocotools>=2.0.7",
    "safetensors>=0.4.3",
    "tqdm",
    # mmcv needs these; it is installed by hand or by the extra "lite", full or lite as you like
    "addict",
    "packaging",
    "pyyaml",
    "yapf",
    # mmseg, mmdet and mmengine import these and do not declare them
    "ftfy",
    "regex",
    "prettytable",
    "scipy",
    "setuptools<82",  # mmengine reads "mmseg::..." config names through pkg_resources
]
EXTRAS = {
    "lite": ["mmcv-lite>=2.0.0,<2.2.0"],
    "dev": [
        "hypothesis",
        "mypy",
        "pytest",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.7",
        "ruff",
        "scikit-learn",
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
    package_data={
        "mmclipdis": ["py.typed"],
        "mmclipdis.clip": ["model_configs/*.json", "model_configs/*.safetensors"],
        "mmclipdis.clip.text": ["class_files/*"],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mmclipdis = mmclipdis.doctor.__main__:command"]},
    zip_safe=False,
)
