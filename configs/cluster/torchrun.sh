#!/bin/bash
# One training on 2 nodes of 8 GPUs without a scheduler; on each node: torchrun.sh CONFIG RUN FIRST_NODE
# Two processes on one computer were tried (--nnodes 1 --nproc-per-node 2, CPU); several nodes were not.
# RUN is on a file system that all nodes share; the first process writes it. Resume by running it again.
config=$1 run=$2 first=$3
export OMP_NUM_THREADS=1
# export NCCL_SOCKET_IFNAME=eth0
torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
  -m pathology.cli train --config "$config" --out "$run" \
  --trainer.num_nodes 2 --trainer.devices 8 --trainer.strategy ddp --trainer.sync_batchnorm true
