#!/usr/bin/env bash
# Checks everything: ruff's rules, its format, and the test suite, in an
# environment that it makes where needed.
#
#   bash launch/test.sh                          all of it, on every core
#   bash launch/test.sh tests/training/test_loss.py -x    arguments go to pytest
#
# LBE_TEST_DATA names the folder of real test data (../shared/data where
# unset); LBE_REQUIRE_TEST_DATA=1 fails where it is absent instead of skipping.
# Other variables: see launch/env.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/env.sh

# The tests run on the CPU, whatever else the machine has.
export LBE_ACCELERATOR=${LBE_ACCELERATOR:-cpu}
enter test
ruff check
ruff format --check
# Files in the order of tests/conftest.py: xdist's own goes by tests in a file.
exec python -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
