"""``python -m fieldmark``."""

import sys

from fieldmark.cli.main import main

sys.exit(main())
