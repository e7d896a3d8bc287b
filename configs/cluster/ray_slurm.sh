#!/bin/bash
# A cohort on 4 nodes of 4 GPUs under SLURM, with Ray: sbatch configs/cluster/ray_slurm.sh VERB OPTIONS...
#   sbatch configs/cluster/ray_slurm.sh explain --run runs/tumour --slides slides.csv --tiles tiles --out heatmaps --keep-going
# Not run here (there was no cluster): partition, account and modules are yours to fill in. Run it again to go on.
#SBATCH --job-name=pathology-cohort
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --open-mode=append

export OMP_NUM_THREADS=1
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000)) # jobs on one node must not meet
export RAY_TMPDIR=${TMPDIR:-/tmp}      # sockets: a short path on the node's own disk

start() { # NODES... : Ray on some of the job's nodes, one srun step
  srun --overlap --nodes "$1" --ntasks "$1" --nodelist "$2" ray start "${@:3}" --block \
    --num-cpus "$SLURM_CPUS_PER_TASK" --disable-usage-stats &
}
start 1 "$head" --head --port "$port" --include-dashboard=true
until srun --overlap --nodes 1 --ntasks 1 --nodelist "$head" ray status --address "$head:$port" >/dev/null 2>&1; do sleep 2; done
others=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tail -n +2 | paste -sd, -)
[ -z "$others" ] || start $((SLURM_NNODES - 1)) "$others" --address "$head:$port"

# The verb itself runs on the head; workers are there as nodes join, nobody waits for all of them.
srun --overlap --nodes 1 --ntasks 1 --nodelist "$head" \
  pathology "$1" "${@:2}" --engine ray --address "$head:$port"
