"""``python -m cifar_resnet`` is the command line."""

import sys

from cifar_resnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
