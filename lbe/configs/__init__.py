"""The experiments; their home in a checkout is configs/ at its top.

This file is the checkout's alone: a wheel has the files of configs/ here, and
`from lbe.configs import common` means the same in both.
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).resolve().parents[2] / 'configs')]
