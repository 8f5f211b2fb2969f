#!/usr/bin/env bash
# Test under Slurm; a training-free model takes '' as checkpoint:
#   GPUS=8 tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
. "$(dirname -- "$0")/_launch.sh"

needs 4 "PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]" "$@"
under_slurm "$1" "$2" test.py "$3" ${4:+"$4"} --launcher slurm "${@:5}"
