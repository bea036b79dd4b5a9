#!/usr/bin/env bash
# Trains on several machines under SLURM, and goes on after a pre-emption or the time limit, until the run is complete:
#
#   sbatch --nodes 2 scripts/slurm.sh configs/image/sd14_rlr_pickscore.yaml mine
#
# Two minutes before the end SLURM sends SIGTERM to all processes. They stop before the same batch, last.ckpt is written, and
# they exit with status 143; the job is then queued again, and resumes by itself (SLURM_RESTART_COUNT).
#SBATCH --job-name=rlr
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -uo pipefail

config=${1:?the config} name=${2:?the name of the run}
status=0
# without --kill-on-bad-exit=0 the first process that ends would take the others with it
srun --kill-on-bad-exit=0 python train.py fit --config "$config" --name "$name" \
    --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" --trainer.strategy ddp "${@:3}" ||
    status=$?

# a pre-empted job that SLURM queues again itself does not come here
if [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
