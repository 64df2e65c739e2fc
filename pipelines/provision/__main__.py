"""python -m pipelines.provision"""

import sys

from pipelines.provision import main

sys.exit(main())
