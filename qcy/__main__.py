"""``python -m qcy`` is the command line, and the demo if nothing else is asked for."""

import sys

from qcy.cli import main

sys.exit(main())
