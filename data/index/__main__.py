"""Look at a dataset before training on it: python -m data.index data.yaml"""

import sys

import utils.env  # noqa: F401  (first: sets the environment that the libraries read on import)
from data.report.main import main
from utils.errors import run_script

sys.exit(run_script(main))
