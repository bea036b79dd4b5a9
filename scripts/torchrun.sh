#!/usr/bin/env bash
# Trains on several machines by torchrun. Start it on each of them with the same CONFIG and HOST:
#
#   NODES=2 GPUS=8 HOST=10.0.0.1 CONFIG=configs/image/sd14_rlr_pickscore.yaml NAME=mine scripts/torchrun.sh
#
# The folder runs/NAME must be one folder for all machines. Each process draws data.batch_size samples for a batch.
# To continue, add --resume.
set -euo pipefail

exec torchrun \
    --nnodes "${NODES:-1}" --nproc_per_node "${GPUS:-1}" \
    --rdzv_id "${NAME:?the name of the run}" --rdzv_backend c10d --rdzv_endpoint "${HOST:-127.0.0.1}:${PORT:-29400}" \
    train.py fit --config "${CONFIG:?the config}" --name "$NAME" \
    --trainer.num_nodes "${NODES:-1}" --trainer.devices "${GPUS:-1}" --trainer.strategy ddp "$@"
