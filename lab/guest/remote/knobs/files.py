"""Move files and folders, and leave symlinks to them where they were. Runs as root.

Argument: {path: target of the symlink}. A relative target begins at the folder of the path.
"""

import json
import os
import shutil
import sys

for path, target in json.loads(sys.argv[1]).items():
    place = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if not os.path.lexists(path):
        sys.exit("there is no %s to move to %s" % (path, place))
    os.makedirs(os.path.dirname(place), exist_ok=True)
    shutil.move(path, place)
    os.symlink(target, path)
print(json.dumps({"applied": True}))
