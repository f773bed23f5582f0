"""`python -m retroact.cli`. This module must not know any verb."""

import sys

from retroact.cli.entry import main

sys.exit(main())
