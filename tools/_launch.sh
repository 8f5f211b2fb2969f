# What the launchers share; each of them sources this file.
set -euf -o pipefail # f: no word of SRUN_ARGS or of anything else is taken for a pattern of files

TOOLS=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" # an empty entry would be the current folder

# needs COUNT WORDS ARGUMENT...: explain the command and stop if there are fewer than COUNT arguments
needs() {
    if [ $(($# - 2)) -lt "$1" ]; then
        echo "usage: tools/$(basename -- "$0") $2" >&2
        exit 2
    fi
}

# on_this_machine GPUS TOOL ARGUMENT...: run a tool in as many processes
#
# Runs on one machine find each other through a free port of their own; PORT or MASTER_ADDR choose
# another meeting point, and those on several machines (NNODES, NODE_RANK) need one.
on_this_machine() {
    local meeting=(--standalone)
    if [ -n "${PORT:-}${MASTER_ADDR:-}" ] || [ "${NNODES:-1}" != 1 ]; then
        meeting=(
            --nnodes="${NNODES:-1}"
            --node_rank="${NODE_RANK:-0}"
            --master_addr="${MASTER_ADDR:-127.0.0.1}"
            --master_port="${PORT:-29500}"
        )
    fi
    exec "${PYTHON:-python}" -m torch.distributed.run "${meeting[@]}" \
        --nproc_per_node="$1" "$TOOLS/$2" "${@:3}"
}

# under_slurm PARTITION JOB_NAME TOOL ARGUMENT...: run a tool in GPUS processes of a Slurm job
under_slurm() {
    local gpus=${GPUS:-4}
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    # SRUN_ARGS holds several words on purpose
    # shellcheck disable=SC2086
    exec srun -p "$1" \
        --job-name="$2" \
        --gres="gpu:$per_node" \
        --ntasks="$gpus" \
        --ntasks-per-node="$per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        "${PYTHON:-python}" -u "$TOOLS/$3" "${@:4}"
}
