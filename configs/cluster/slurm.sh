#!/bin/bash
# One training on 2 nodes of 4 GPUs under SLURM: sbatch configs/cluster/slurm.sh CONFIG RUN
# Not run here (there was no cluster): partition, account, modules and paths are yours to fill in.
#
# Lightning finds SLURM by SLURM_NTASKS and reads SLURM_PROCID, SLURM_LOCALID, SLURM_NODEID and SLURM_NODELIST;
# the port is made of the job's number (or MASTER_PORT, if that is set). So --nodes must be
# trainer.num_nodes, and --ntasks-per-node trainer.devices.
#SBATCH --job-name=pathology
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Five minutes before the time is up, every process is told; it finishes its step, saves and ends.
#SBATCH --signal=USR1@300

config=$1 run=$2
export OMP_NUM_THREADS=1
# export NCCL_SOCKET_IFNAME=ib0   # where nodes have several networks
# export NCCL_DEBUG=INFO          # when they do not find one another

srun --kill-on-bad-exit=1 pathology train --config "$config" --out "$run" \
  --trainer.num_nodes 2 --trainer.devices 4 --trainer.strategy ddp --trainer.sync_batchnorm true
code=$?

# 138: told by USR1; 143: by TERM, as when a job is preempted. The next job goes on where this one ended.
if [ $code = 138 ] || [ $code = 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
