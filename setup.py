"""The package lbe: what it needs, and which extra brings what."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
  r"^__version__ = '(.+)'$", (HERE / 'lbe' / '__init__.py').read_text(), re.M
)[1]

# Lower bounds are the oldest releases that the test suite has been run with.
REQUIRED = [
  'absl-py>=2.1',
  'array_record>=0.8.3; platform_system != "Windows"',
  'etils[epath]>=1.12',
  'flax>=0.12.8',
  'fonttools>=4.60',  # its tables of Unicode scripts
  'grain>=0.2.18',
  # tensorflow-datasets imports it without asking for it.
  'importlib_resources>=6.4',
  'jax>=0.10.2',
  'ml-collections>=1.1.0',
  'numpy>=2.1',
  'optax>=0.2.8',
  'orbax-checkpoint>=0.12.8',
  'psutil>=6.0',
  'safetensors>=0.7',
  'sentencepiece>=0.2.2',
  'tensorboard>=2.18',
  'tensorflow-datasets>=4.9.10',
  'tokenizers>=0.22.2',
  'tqdm>=4.67',
  'xxhash>=4.1',
]
# transformers, torch and peft are the other side of conversion and its proofs.
HF = ['peft>=0.18', 'torch>=2.8', 'transformers>=5.0']
PLOT = ['matplotlib>=3.9']
# Models by their names, and uploads.
HUB = ['huggingface_hub>=1.0']
# Trackers of runs.
MLFLOW = ['mlflow-skinny>=3.17']
WANDB = ['wandb>=0.31']
# Tokenizers' own chat templates.
CHAT = ['jinja2>=3.1.6']
# The report of a study.
STUDY = [*CHAT, *PLOT]
# Near duplicates and language identification. Another minor version of rensa
# may hash otherwise and leave out other records.
CLEAN = ['lingua-language-detector>=2.1', 'rensa>=0.5,<0.6']
# chrF and BLEU; the words of CMRC's F1.
EVALS = ['nltk>=3.9', 'sacrebleu>=2.4']
# Without torch, which only its own models need.
LM_EVAL = ['lm-eval>=0.4.13']
# Reads models as lid.176.bin, and does not train any.
FASTTEXT = ['fasttext-predict>=0.9.2.4']
# Kernels of attention for NVIDIA.
TOKAMAX = ['tokamax>=0.0.12']
# XLA's compiler for NVIDIA without CUDA's own libraries: plans for GPUs.
PLAN_GPU = [
  'jax-cuda13-plugin; platform_system == "Linux"',
  'nvidia-cuda-nvcc; platform_system == "Linux"',
  'nvidia-nvvm; platform_system == "Linux"',
]
# The pages as a site (mkdocs.yml).
DOCS = ['mkdocs>=1.6', 'mkdocs-material>=9.6']
# Parquet and Arrow files, and .zst.
DATA = ['pyarrow>=20.0', 'zstandard>=0.23']

PACKAGES = setuptools.find_packages(
  include=['lbe', 'lbe.*'], exclude=['lbe.configs']
)

setuptools.setup(
  name='lbe',
  version=VERSION,
  description='Carry LLaMA into other languages, in JAX',
  long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  author='The lbe authors',
  license='Apache-2.0',
  license_files=['LICENSE'],
  keywords=['llama', 'jax', 'multilingual', 'pretraining', 'fine-tuning'],
  classifiers=[
    'Development Status :: 4 - Beta',
    'Intended Audience :: Science/Research',
    'Natural Language :: English',
    'Operating System :: POSIX :: Linux',
    'Programming Language :: Python :: 3',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
  python_requires='>=3.11',
  packages=['lbe.configs', 'lbe.configs.studies', *PACKAGES],
  package_dir={'lbe.configs': 'configs'},
  package_data={
    'lbe.data': ['sample/*.txt'],
    'lbe.judging': ['rubrics/*.toml'],
    'lbe.run': ['pages/*'],
    'lbe.studies': ['paper.toml'],
    'lbe.text': ['languages.toml'],
  },
  install_requires=REQUIRED,
  entry_points={'console_scripts': ['lbe=lbe.__main__:main']},
  extras_require={
    'cuda': ['jax[cuda13]'],
    # For NVIDIA drivers older than 580.
    'cuda12': ['jax[cuda12]'],
    'tpu': ['jax[tpu]'],
    'plan_gpu': PLAN_GPU,
    'tokamax': TOKAMAX,
    'hf': HF,
    'hub': HUB,
    'mlflow': MLFLOW,
    'wandb': WANDB,
    'plot': PLOT,
    'chat': CHAT,
    'study': STUDY,
    'clean': CLEAN,
    'evals': EVALS,
    'fasttext': FASTTEXT,
    'lm_eval': LM_EVAL,
    'data': DATA,
    # gs:// and s3:// behind etils.epath.
    'remote': ['gcsfs>=2025.3', 's3fs>=2025.3'],
    'docs': DOCS,
    # Beam takes no protobuf as new as the newest sentencepiece's, so it has an
    # environment of its own.
    'beam': ['apache-beam>=2.70', 'sentencepiece<0.2.3'],
    'test': [
      *CLEAN,
      *CHAT,
      *DATA,
      *DOCS,
      *EVALS,
      *FASTTEXT,
      *HUB,
      *MLFLOW,
      *PLOT,
      'accelerate>=1.10',  # lm-eval's Hugging Face models need it
      'hypothesis>=6.130',
      # Compiles for TPUs where there are none.
      'jax[tpu]; platform_system == "Linux"',
      *LM_EVAL,
      *PLAN_GPU,
      *TOKAMAX,
      *WANDB,
      'peft>=0.18',
      'pytest>=8.4',
      'pytest-timeout>=2.4',
      'pytest-xdist>=3.8',
      'ruff>=0.14',
      'setuptools>=77',  # builds the wheel that a test installs
      # The version is pinned because parity with it is tested to the bit.
      'torch==2.13.0',
      'transformers>=5.0',
    ],
  },
)
