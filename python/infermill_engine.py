"""What infermill starts as a Python engine; parses under every Python, so that one that is too old can say so."""
import json
import os
import struct
import sys

if sys.version_info < (3, 9):
    PROBLEM = "must be Python 3.9 or later, %s is %s" % (sys.executable, sys.version.split()[0])
    if "--check" in sys.argv:
        print(json.dumps({"faults": [{"key": "python", "problem": PROBLEM}]}))
    else:
        ERROR = {"code": "bad_configuration", "detail": "python " + PROBLEM, "retryable": False}
        HEADER = json.dumps({"type": "load_failed", "error": ERROR}).encode("utf-8")
        os.write(3, b"IFM1" + struct.pack("<II", len(HEADER), 0) + HEADER)
    sys.exit(0)

if __name__ == "__main__":
    if "--check" in sys.argv:
        from infermill.check import main
    else:
        from infermill.engine import main
    main()
