"""``python -m receiver.workers HANDLE PARENT``: started by worker 0 and by nobody else."""

import sys

from receiver.workers.worker import main

if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
