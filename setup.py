# SPDX-License-Identifier: Apache-2.0
"""Packaging of tfvae: what it needs, in the ranges it is tested with."""

import pathlib
import re

import setuptools

_ROOT = pathlib.Path(__file__).parent
_MOLECULES = (
    "networkx>=3.4,<4",
    "rdkit>=2026.3,<2027",
    "selfies>=2.1,<3",
)
# Files of OpenEXR, which imagecodecs does not read.
_EXR = ("openexr>=3.3,<3.6",)
_GIN_PACKAGES = [
    ".".join(["tfvae", *path.relative_to(_ROOT).parts])
    for path in (_ROOT / "gin", *(_ROOT / "gin").rglob("*"))
    if path.is_dir()
]
_STUDIES = (
    # TensorBoard has it, too.
    "markdown>=3.6,<4",
    "pandas>=2.2,<4",
    "statsmodels>=0.14.4,<0.16",
    "tabulate>=0.9,<0.11",
)


def _version() -> str:
    text = (_ROOT / "tfvae" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError("tfvae/__init__.py must define `__version__`.")
    return found.group(1)


def _readme() -> str:
    path = _ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


setuptools.setup(
    name="tfvae",
    version=_version(),
    description="Variational autoencoders in TensorFlow whose usual parts have "
    "been replaced: no encoder, random encoders, flow priors.",
    long_description=_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[
        *setuptools.find_packages(include=["tfvae", "tfvae.*"]),
        *_GIN_PACKAGES,
    ],
    # The gin files stand at the root of a clone, and are installed as data.
    package_dir={"tfvae.gin": "gin"},
    package_data={
        "": ["*.css", "*.html", "*.js", "*.pyi", "py.typed"],
        **{package: ["*.gin"] for package in _GIN_PACKAGES},
    },
    entry_points={"console_scripts": ["tfvae = tfvae.cli.main:main"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1,<3",
        "cloudpickle>=3,<4",
        "filelock>=4,<5",
        "gin-config>=0.5,<0.6",
        # Compressed TIFF, 16-bit PNG and JPEG 2000; tifffile needs it for LZW.
        "imagecodecs>=2024.9.22,<2028",
        # TensorFlow Datasets imports it on every Python, but asks for it only
        # below 3.9.
        "importlib_resources>=6,<8",
        "keras>=3.15,<3.16",
        "lazy-loader>=0.6,<0.7",
        "matplotlib>=3.10.8,<3.12",
        "numpy>=2.1,<2.5",
        "packaging>=24,<27",
        "pillow>=11,<14",
        "psutil>=6,<8",
        "scikit-image>=0.25,<0.27",
        "scikit-learn>=1.6,<1.10",
        "scipy>=1.14,<1.18",
        # tf.summary lives here; TensorFlow no longer asks for it.
        "tensorboard>=2.20,<2.22",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10,<4.10",
        "tensorflow-probability>=0.25,<0.26",
        # TensorFlow Probability imports it, but does not ask for it.
        "tf-keras>=2.21,<2.22",
        "threadpoolctl>=3.1,<4",
        "tifffile>=2024.8,<2028",
        "tqdm>=4.66,<5",
        # TensorFlow has it, too.
        "wrapt>=2.0,<3",
    ],
    extras_require={
        # The documentation site, and its tutorials as notebooks.
        "docs": [
            "ipykernel>=7,<8",
            "jupytext>=1.19,<2",
            "myst-nb>=1.4,<2",
            "nbconvert>=7.17,<8",
            "pydata-sphinx-theme>=0.24,<0.25",
            "sphinx>=9,<10",
            "sphinx-copybutton>=0.5.2,<0.6",
        ],
        # OpenEXR pictures.
        "exr": [*_EXR],
        # Molecules as SELFIES, and their scores.
        "molecules": [*_MOLECULES],
        # Training on several processes, with the system's MPI or `mpich`.
        "mpi": ["mpi4py>=4.1,<5"],
        # Evaluations on a cluster.
        "ray": ["ray>=2.60,<3"],
        # A client that talks to TensorFlow Serving by gRPC.
        "serving": ["tensorflow-serving-api>=2.21,<2.22"],
        # Cells of studies as jobs of SLURM.
        "slurm": ["submitit>=1.5.4,<2"],
        # Reports of sweeps, and tables of benchmarks.
        "studies": [*_STUDIES],
        "test": [
            *_EXR,
            *_MOLECULES,
            *_STUDIES,
            # Draws the arguments of property tests.
            "hypothesis>=6.140,<7",
            # Several processes, with an MPI of their own.
            "mpi4py>=4.1,<5",
            "mpich>=5,<6",
            "mypy>=2.4,<2.5",
            "pytest>=9.0,<10",
            "pytest-xdist>=3.8,<4",
            "ruff>=0.17.5,<0.18",
            # Opens pages in a browser.
            "selenium>=4.25,<5",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
