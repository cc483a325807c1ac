#!/bin/sh
# CPU seconds of training steps, official and ours in turns, one thread each:
#   PYTHON=python3 tools/compare_steps.sh DM-IMPROVES-AT [wrn-10-1-swish 64 | wrn-28-10-swish 4] [TURNS]
set -e
arch=${2:-wrn-10-1-swish} batch=${3:-64} turns=${4:-3}
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 TRAIN_BENCH="$arch" TRAIN_STEPS=4
for turn in $(seq "$turns"); do
    "${PYTHON:-python3}" tools/official_step.py "$1" "$arch" "$batch" 4 | grep official
    cargo bench -q --profile dev --bench train | grep gauntlet
done | awk '{ print; if (!($3 in least) || $4 < least[$3]) least[$3] = $4; sum[$3] += $4; n[$3]++ }
    END { for (who in least) printf "%s: least %.4f s, mean %.4f s\n", who, least[who], sum[who] / n[who]
          printf "official / gauntlet: %.3f by the least, %.3f by the mean\n",
              least["official"] / least["gauntlet"],
              sum["official"] / n["official"] / (sum["gauntlet"] / n["gauntlet"]) }'
