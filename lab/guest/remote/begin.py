"""Begin a cell: set the clock, seed the kernel's random numbers and mark its log. Runs as root.

Argument: {"clock": seconds since 1970, "seed": random bytes in base64, "mark": text}.
"""

import base64
import fcntl
import json
import sys
import time
from pathlib import Path

# RNDRESEEDCRNG of <linux/random.h>: numbers drawn from now on depend on all that was written to the device.
RESEED = 0x5207

request = json.loads(sys.argv[1])
# After a fork the clock stands where it stood at the checkpoint.
time.clock_settime(time.CLOCK_REALTIME, request["clock"])
# All forks of one checkpoint would draw the same random numbers: a test that is flaky by its hashes or its
# addresses would pass in each of them, or fail in each.
with open("/dev/urandom", "wb", buffering=0) as device:
    device.write(base64.b64decode(request["seed"]))
    fcntl.ioctl(device, RESEED)
# The kernel's limit on its own messages drops audit lines when a cell makes many at once.
Path("/proc/sys/kernel/printk_ratelimit").write_text("0")
Path("/dev/kmsg").write_text(request["mark"] + "\n")
print(json.dumps({"begun": True}))
