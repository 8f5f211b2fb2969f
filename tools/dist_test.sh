#!/usr/bin/env bash
# Test on several GPUs (or, with gloo, CPUs) of this machine; a training-free model takes '' as checkpoint:
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
. "$(dirname -- "$0")/_launch.sh"

needs 3 "CONFIG CHECKPOINT GPUS [options of tools/test.py]" "$@"
on_this_machine "$3" test.py "$1" ${2:+"$2"} --launcher pytorch "${@:4}"
