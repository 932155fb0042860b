"""`python -m training RECIPE …` is `embedsvc train`; torchrun starts it several times:

python -m torch.distributed.run --nproc-per-node 2 -m training RECIPE --out DIR [--data DIR] …
"""

import sys

from embedsvc.cli import main

sys.argv.insert(1, "train")
main()
