"""What Dataflow's launcher runs: the installed job itself, so that nothing is pickled out of `__main__`."""

import sys

from pipelines.stream import main

sys.exit(main())
