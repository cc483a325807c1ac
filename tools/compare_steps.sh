#!/bin/sh
# CPU seconds of training steps, official and ours in turns, one thread each:
#   PYTHON=python3 tools/compare_steps.sh DM-IMPROVES-AT [wrn-10-1-swish 64 | wrn-28-10-swish 4] [TURNS]
# PYTHON has torch, best the libtorch that this is built with. STEPS=4 is the steps of a turn.
set -e
[ -d "$1/core" ] || { echo "usage: $0 FOLDER-OF-DM-IMPROVES-AT [ARCH BATCH [TURNS]]" >&2; exit 2; }
official=$(cd "$1" && pwd) arch=${2:-wrn-10-1-swish} batch=${3:-64} turns=${4:-3} steps=${STEPS:-4}
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 TRAIN_BENCH="$arch" TRAIN_BATCH="$batch" TRAIN_STEPS="$steps"
times=$(mktemp)
trap 'rm -f "$times"' EXIT
cargo bench -q --profile dev --bench train --no-run
for turn in $(seq "$turns"); do
    "${PYTHON:-python3}" tools/official_step.py "$official" "$arch" "$batch" "$steps" >>"$times"
    cargo bench -q --profile dev --bench train >>"$times"
done
grep -E '^wrn-.* (official|gauntlet) ' "$times" | awk '
    { print; if (!($3 in least) || $4 < least[$3]) least[$3] = $4; sum[$3] += $4; n[$3]++ }
    END { for (who in least) printf "%s: least %.4f s, mean %.4f s\n", who, least[who], sum[who] / n[who]
          printf "official / gauntlet: %.3f by the least, %.3f by the mean\n",
              least["official"] / least["gauntlet"],
              sum["official"] / n["official"] / (sum["gauntlet"] / n["gauntlet"]) }'
