#!/usr/bin/env bash
# Train on several GPUs (or, with gloo, CPUs) of this machine:
#   tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
. "$(dirname -- "$0")/_launch.sh"

needs 2 "CONFIG GPUS [options of tools/train.py]" "$@"
on_this_machine "$2" train.py "$1" --launcher pytorch "${@:3}"
