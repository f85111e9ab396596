#!/bin/sh
# In an image on a CANN base: what CANN wants in the environment, then the command.
set -e
toolkit=/usr/local/Ascend/ascend-toolkit/set_env.sh
if [ -f "$toolkit" ]; then
    # shellcheck source=/dev/null
    . "$toolkit"
fi
exec "$@"
